"""The least permissions that a plugin needed while it was observed (`veko serve --learn`).

What is written is what a person would write: a folder rather than its four hundred files, a host
rather than its ten ports, the beginning of names of variables. What is generalised never becomes
the application's whole directory, a folder of the system, or a top-level domain.

Observation is not enforcement: a plugin that is observed may do everything.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from .._lib.permissions import Endpoint, Permission, covers, parse_permission
from .._lib.private_files import private_folder
from .._source.source import Source
from .accesses import Access
from .links import is_below
from .lock import normal
from .permissions import grants

__all__ = ["Learned", "learned", "least_permissions", "write_learned", "write_manifest"]

_MANY: Final = 3
"""So many files of a folder, ports of a host and so on are listed; more become one permission."""
_SHALLOW: Final = 3
"""The parts, with the root, that a folder outside of the application has at least."""


class Learned(msgspec.Struct, frozen=True):
    """What was learned of one plugin.

    Attributes:
        plugin: Its name.
        source: Where it was found.
        declared: What its manifest asks for, in normal form.
        needed: What it needed.
        ungranted: What it did that no permission grants: foreign functions, remote imports.
    """

    plugin: str
    source: Source
    declared: tuple[str, ...]
    needed: tuple[str, ...]
    ungranted: tuple[str, ...] = ()

    def difference(self) -> list[str]:
        """Return, for a person, what the manifest lacks and what was not needed."""
        lines = [f"+ {one}" for one in self.needed if one not in self.declared]
        lines += [f"- {one}" for one in self.declared if one not in self.needed]
        return lines + [f"! no permission grants {one}" for one in self.ungranted]


def learned(
    plugin: str, source: Source, declared: Iterable[str], found: Iterable[Access], directory: Path
) -> Learned:
    """Return what was learned of a plugin.

    Args:
        plugin: Its name.
        source: Where it was found.
        declared: The permissions in its manifest.
        found: What it accessed.
        directory: The application's directory.
    """
    own = grants((), folder=source.path or directory, directory=directory).own()
    found = [
        one
        for one in found
        if one.kind != "read:files" or not any(is_below(Path(one.value), folder) for folder in own)
    ]
    other = dict.fromkeys(
        f"{one.kind}:{one.value}" for one in found if one.kind in ("ffi", "import", "sys")
    )
    needed = least_permissions(found, directory)
    return Learned(plugin, source, normal(declared), tuple(map(str, needed)), tuple(other))


def least_permissions(found: Iterable[Access], directory: Path) -> list[Permission]:
    """Return the least permissions that cover accesses, generalised sensibly, in order.

    Args:
        found: The accesses.
        directory: The application's directory.
    """
    values: dict[str, set[str]] = defaultdict(set)
    for one in found:
        if one.value and one.value != "…":
            values[one.kind].add(one.value)
        elif one.kind == "process:spawn":
            values[one.kind].add("")
    texts: list[str] = []
    for kind in ("read:files", "write:files"):
        scopes = (_scope(value, directory) for value in values[kind])
        texts += (f"{kind}:{one}" for one in _folders(scopes, writes=kind == "write:files"))
    texts += (f"net:connect:{one}" for one in _hosts(values["net:connect"]))
    texts += (f"net:listen{one}" for one in _listeners(values["net:listen"]))
    names = (name for name in values["env:read"] if name in os.environ)  # else it is not there
    texts += (f"env:read:{one}" for one in _variables(names))
    texts += (f"process:spawn{one and ':'}{one}" for one in map(_program, values["process:spawn"]))
    for kind in ("read:database", "write:database"):
        texts += (f"{kind}:{one}" for one in values[kind])
    permissions: set[Permission] = set()
    for text in texts:
        try:
            permissions.add(parse_permission(text))
        except ValueError:
            continue  # a path with a comma, say: nobody can be granted it
    least = [
        one
        for one in permissions
        if not any(other != one and covers(other, one) for other in permissions)
    ]
    return sorted(least, key=str)


def _scope(value: str, directory: Path) -> PurePosixPath:
    path = Path(os.path.normpath(value))
    if path.is_relative_to(directory):
        return PurePosixPath(path.relative_to(directory).as_posix())
    return PurePosixPath(path.as_posix())


def _folders(paths: Iterable[PurePosixPath], *, writes: bool) -> Iterator[str]:
    """Yield paths; many of one folder become the folder, again and again.

    What is written to is always a folder, if there is one: a file that does not exist yet when the
    plugin starts cannot be granted by itself.
    """
    found = set(paths)
    if writes:
        found = {one.parent if _is_folder(one.parent) else one for one in found}
    while True:
        children: dict[PurePosixPath, set[PurePosixPath]] = defaultdict(set)
        for one in found:
            if _is_folder(one.parent):
                children[one.parent].add(one)
        many = [folder for folder, inside in children.items() if len(inside) > _MANY]
        if not many:
            break
        deepest = max(many, key=lambda one: len(one.parts))
        found = {one for one in found if deepest not in one.parents} | {deepest}
    for one in found:
        yield str(one) if one.is_absolute() else f"./{one}"


def _is_folder(folder: PurePosixPath) -> bool:
    """Return whether a folder may stand for what is in it."""
    if folder.is_absolute():
        return len(folder.parts) >= _SHALLOW
    return bool(folder.parts)


def _hosts(values: Iterable[str]) -> Iterator[str]:
    ports: dict[str, set[int | None]] = defaultdict(set)
    for value in values:
        try:
            endpoint = Endpoint.parse(value)
        except ValueError:
            continue
        ports[endpoint.host].add(endpoint.port)
    below: dict[str, set[str]] = defaultdict(set)
    for host in ports:
        if Endpoint(host).address is None:
            below[host.partition(".")[2]].add(host)
    for parent, hosts in below.items():
        if len(hosts) <= _MANY or not _is_owned(parent):
            continue
        for host in hosts:
            ports[f"*.{parent}"] |= ports.pop(host)
    for host, found in ports.items():
        if len(found) > _MANY or None in found:
            yield str(Endpoint(host))
        else:
            yield from (str(Endpoint(host, port)) for port in found)


def _is_owned(domain: str) -> bool:
    """Return whether one owner has all names below a domain: not so for `com` and `co.uk`."""
    labels = domain.split(".")
    return len(labels) > 2 or (len(labels) == 2 and len(labels[0]) > 3)


def _listeners(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        host, _, port = value.rpartition(":")
        if port == "0":
            yield ""  # any that is free
        elif host in ("0.0.0.0", "[::]", "::"):
            yield f":{port}"
        else:
            yield f":{value}"


def _variables(names: Iterable[str]) -> Iterator[str]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.partition("_")[0] + "_" if "_" in name[1:] else name].append(name)
    for beginning, found in groups.items():
        if len(found) > _MANY:
            yield f"{beginning}*"
        else:
            yield from found


def _program(value: str) -> str:
    """Return a program by its name if it is one of the system's, else by its path."""
    path = Path(value)
    if str(path.parent) in ("/bin", "/usr/bin", "/usr/local/bin", "/sbin", "/usr/sbin"):
        return path.name
    return value


# -- where it is written


def write_learned(one: Learned, directory: Path) -> Path:
    """Write what was learned to `.veko/learned/<plugin>.toml`; returns the file.

    Raises:
        OSError: It cannot be written.
    """
    file = directory / ".veko" / "learned" / f"{one.plugin}.toml"
    private_folder(file.parent)
    lines = "".join(f"# {line}\n" for line in one.difference())
    about = f"# What {one.plugin} needed while it was observed, for its manifest.\n"
    file.write_text(f"{about}{lines}{_toml(one.needed)}", "utf-8")
    return file


def write_manifest(one: Learned) -> Path | None:
    """Put what was learned into `package.json` or `plugin.toml`; source code is never changed.

    Returns:
        The file; `None` if the plugin has neither, and its source has to be edited by hand.

    Raises:
        OSError: It cannot be read or written.
        ValueError: It is not what it should be.
    """
    folder = one.source.path
    if folder is None or not folder.is_dir():
        return None
    package, toml = folder / "package.json", folder / "plugin.toml"
    if toml.exists():
        text = toml.read_text("utf-8")
        new = _with_permissions(text, one.needed)
        wanted = tomllib.loads(text) | {"permissions": list(one.needed)}
        if tomllib.loads(new) != wanted:
            raise ValueError(f"{toml} is written in a way that cannot be changed by a program")
        _replace(toml, new)
        return toml
    if package.exists():
        text = package.read_text("utf-8")
        table: Any = json.loads(text)
        section = table.setdefault("veko", {}) if isinstance(table, dict) else None
        if not isinstance(section, dict):
            raise ValueError(f"{package}: `veko` is not a table")
        section["permissions"] = list(one.needed)
        indent = re.search(r"\n([ \t]+)\"", text)
        new = json.dumps(table, indent=indent[1] if indent else 2, ensure_ascii=False)
        _replace(package, f"{new}\n")
        return package
    return None


def _replace(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.veko")
    temporary.write_text(text, "utf-8")
    temporary.chmod(file.stat().st_mode)
    temporary.replace(file)


_FIELD: Final = re.compile(
    r"""^permissions[ \t]*=[ \t]*\[(?:[^\]"']|"(?:\\.|[^"\\])*"|'[^']*')*\][^\n]*\n?""", re.M
)


def _with_permissions(text: str, permissions: tuple[str, ...]) -> str:
    """Return the text of a `plugin.toml` with other permissions, before its first table."""
    table = re.search(r"^[ \t]*\[", text, re.M)
    found = _FIELD.search(text)
    if found is not None and (table is None or found.start() < table.start()):
        return text[: found.start()] + _toml(permissions) + text[found.end() :]
    at = table.start() if table is not None else len(text)
    before = text[:at]
    separator = "" if not before or before.endswith("\n") else "\n"
    return before + separator + _toml(permissions) + text[at:]


def _toml(permissions: tuple[str, ...]) -> str:
    if not permissions:
        return "permissions = []\n"
    lines = "".join(f"    {json.dumps(one, ensure_ascii=False)},\n" for one in permissions)
    return f"permissions = [\n{lines}]\n"

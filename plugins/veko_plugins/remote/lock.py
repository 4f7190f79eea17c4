"""`veko.lock`: which files each plugin has, and what it was allowed.

    [plugins.weather]
    version = "1.2.0"
    source = "plugins/weather.ts"
    hash = "sha256:…"
    confined = true
    permissions = ["net:connect:api.example.com:443"]

Promise: the file is replaced whole or not at all. A digest covers every file of a plugin that can
run, `node_modules` in its folder too; not what tools write for themselves.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from veko.errors import OptionError

from .._lib.permissions import covers, parse_permission
from .._lib.regular_files import open_regular, read_toml
from .._source.source import Source

__all__ = ["NAME", "Entry", "Lock", "changes", "digest", "growth", "location", "normal"]

NAME: Final = "veko.lock"
_VERSION: Final = 1
_HEADER: Final = """\
# What each plugin is, and what it may do. Written by `veko allow`; keep it with the application.
version = 1
"""
_TOOLS: Final = frozenset(
    ("__pycache__", ".git", ".hg", ".svn", ".veko", ".DS_Store", ".mypy_cache", ".pytest_cache",
     ".ruff_cache")
)  # fmt: skip
_CHUNK: Final = 2**20


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin in `veko.lock`.

    Attributes:
        version: The version that was allowed.
        source: Where it was, relative to the application's directory, or its entry point.
        hash: The digest of its files.
        confined: Whether it runs confined; otherwise it may do anything.
        permissions: What it was allowed, in normal form.
    """

    version: str = ""
    source: str = ""
    hash: str = ""
    confined: bool = False
    permissions: tuple[str, ...] = ()


class Lock(msgspec.Struct):
    """The content of `veko.lock`.

    Attributes:
        path: The file.
        entries: The plugins by name.
    """

    path: Path
    entries: dict[str, Entry] = {}

    @classmethod
    def read(cls, directory: Path) -> Lock | None:
        """Read the file of an application; `None` if it has none.

        Raises:
            OptionError: It cannot be read, or is not valid. It is not taken for missing.
        """
        path = directory / NAME
        try:
            table: Any = read_toml(path)
            if table.get("version") != _VERSION:
                raise ValueError(f"its version is {table.get('version')!r}, expected {_VERSION}")
            entries = msgspec.convert(table.get("plugins", {}), dict[str, Entry])
            for name, entry in entries.items():
                _check(name, entry)
        except FileNotFoundError:
            return None
        except (ValueError, msgspec.ValidationError) as error:
            raise OptionError(
                f"{path} is not valid: {error}",
                remedy="Restore it, or remove it and run `veko allow --all`.",
            ) from error
        return cls(path, entries)

    def write(self) -> None:
        """Write the file.

        Raises:
            OSError: It cannot be written; the one before is still there.
        """
        parts = [_HEADER]
        for name, entry in sorted(self.entries.items()):
            parts.append(
                f"\n[plugins.{_text(name)}]\nversion = {_text(entry.version)}\n"
                f"source = {_text(entry.source)}\nhash = {_text(entry.hash)}\n"
                f"confined = {'true' if entry.confined else 'false'}\n"
                f"permissions = [{_items(entry.permissions)}]\n"
            )
        descriptor, temporary = tempfile.mkstemp(prefix=f".{NAME}.", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write("".join(parts))
                os.fchmod(descriptor, _mode(self.path))
            Path(temporary).replace(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise


def growth(before: Entry, now: Entry) -> list[str]:
    """Return what a plugin asks for now and was not allowed before; empty if nothing.

    Args:
        before: What it was allowed.
        now: What it asks for.
    """
    found: list[str] = []
    if before.confined and not now.confined:
        found.append("to run without being confined")
    allowed = [parse_permission(one) for one in before.permissions]
    for text in now.permissions:
        asked = parse_permission(text)
        if not any(covers(one, asked) for one in allowed):
            found.append(text)
    return found


def normal(permissions: Iterable[str]) -> tuple[str, ...]:
    """Return permissions in normal form and order; those that are not valid are left out."""
    found = set()
    for text in permissions:
        with contextlib.suppress(ValueError):  # such a plugin does not load anyhow
            found.add(str(parse_permission(text)))
    return tuple(sorted(found))


def location(source: Source, directory: Path) -> str:
    """Return how `veko.lock` names the place of a plugin."""
    if source.path is None:
        return str(source)
    # As texts: it is asked for each plugin at each import, and `Path` takes ten times as long.
    path, home = os.path.abspath(source.path), f"{directory}{os.sep}"  # noqa: PTH100
    return path.removeprefix(home).replace(os.sep, "/")


def digest(source: Source) -> str:
    """Return the digest of a plugin's files as they are now; takes as long as reading them.

    Raises:
        OSError: A file cannot be read.
    """
    whole = hashlib.sha256()
    if source.path is None:
        whole.update(_distribution(source).encode())
    else:
        for name, content in _contents(source.path):
            whole.update(b"%d %s %s\n" % (len(name), os.fsencode(name), content))
    return f"sha256:{whole.hexdigest()}"


def _distribution(source: Source) -> str:
    """Return what an installed distribution says that its files are."""
    assert source.entry_point is not None
    distribution = source.entry_point.dist
    if distribution is None:
        return source.entry_point.value
    record = distribution.read_text("RECORD") or ""
    return f"{source.entry_point.value}\n{distribution.version}\n{record}"


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names of files and digests of their contents, in order of the names."""
    if not path.is_dir():
        yield path.name, _of_file(path)
        return
    found: list[tuple[str, bytes]] = []
    pending: list[tuple[Path, str, tuple[str, ...]]] = [(path, "", (os.path.realpath(path),))]
    while pending:
        folder, inside, around = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in _TOOLS or entry.name.endswith((".pyc", ".pyo")):
                    continue
                name = f"{inside}{entry.name}"
                here = Path(entry.path)
                if entry.is_symlink():
                    found.append((f"{name}\0link", os.fsencode(here.readlink())))
                if entry.is_dir():
                    real = os.path.realpath(here)
                    if real not in around:
                        pending.append((here, f"{name}/", (*around, real)))
                elif entry.is_file():
                    found.append((name, _of_file(here)))
    yield from sorted(found)


def _of_file(path: Path) -> bytes:
    content = hashlib.sha256()
    file, state = open_regular(path)
    with file:
        while chunk := file.read(_CHUNK):
            content.update(chunk)
    # Whether a program may be started is part of what it is.
    executable = b"x" if state.st_mode & stat.S_IXUSR else b"-"
    return executable + content.hexdigest().encode()


def _check(name: str, entry: Entry) -> None:
    for text in entry.permissions:
        try:
            parse_permission(text)
        except ValueError as error:
            raise ValueError(f"[plugins.{name}] permissions: {text!r}: {error}") from error


def _mode(path: Path) -> int:
    """Return the mode for the next file: that of the present one, or what the umask leaves."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0o644


def _items(texts: Iterable[str]) -> str:
    return ", ".join(map(_text, texts))


def _text(text: str) -> str:
    """Return a TOML string: JSON's escapes are TOML's, except that DEL needs one too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def changes(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> Iterator[str]:
    """Yield, for a person, what differs between two locks."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if new is None:
            yield f"- {name}"
            continue
        if old == new:
            continue
        sign = "+" if old is None else "~"
        yield f"{sign} {name} {new.version}" + ("" if new.confined else "  (not confined)")
        was = set(old.permissions) if old is not None else set()
        yield from (f"    + {one}" for one in new.permissions if one not in was)
        yield from (f"    - {one}" for one in sorted(was - set(new.permissions)))
        if old is not None and old.hash != new.hash:
            yield "    files changed"

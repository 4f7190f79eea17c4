"""The entries of plugin folders: which of them are plugins, and what stands in `plugin.toml`.

Promise: nothing is imported or run.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from veko import LoadError, ManifestError
from veko.errors import Fault

from .._lib.regular_files import read_toml
from .._lib.versions import did_you_mean
from .._source.outline import FIELDS
from .._source.packages import read_package
from .._source.scripts import PACKAGE, is_script

__all__ = ["INIT", "TOML", "Entry", "look_at", "may_require", "read_fields", "siblings"]

INIT: Final = "__init__.py"
TOML: Final = "plugin.toml"
_NOT_PLUGINS: Final = frozenset(("node_modules",))


class Entry(msgspec.Struct, frozen=True):
    """A plugin in a plugin folder, before anything of its source was read.

    Attributes:
        kind: As in `Source`.
        main: The file in a folder of scripts that is run.
        fields: The fields that its `package.json` spells out.
    """

    kind: Literal["file", "package", "script"]
    main: str | None = None
    fields: dict[str, Any] = {}

    def linkable(self, path: Path) -> tuple[Path, ...]:
        """Return the files inside a folder that must not be links out of it."""
        if self.kind == "package":
            return path / INIT, path / TOML
        return (path / self.main, path / PACKAGE) if self.main is not None else ()


_FILE: Final = Entry("file")
_SCRIPT: Final = Entry("script")
_PACKAGE: Final = Entry("package")


def look_at(
    path: Path, suffix: str, *, linked: bool = False, is_file: bool = False, scripts: bool = True
) -> Entry | None:
    """Return which kind of plugin an entry of a folder is; `None` if it is none.

    Args:
        path: The entry.
        suffix: Its suffix, if a file with that is imported as Python.
        linked: Whether it is a link.
        is_file: Whether it is known to be a regular file.
        scripts: Whether scripts count.

    Raises:
        LoadError: The entry cannot be looked at, or its file is no regular file.
        ManifestError: Its `package.json` is not valid.
    """
    if suffix or is_script(path):
        entry = _FILE if suffix else _SCRIPT if scripts else None
        return entry if entry and (is_file or _is_regular(path, path, linked)) else None
    if is_file or path.name in _NOT_PLUGINS:
        return None
    if _is_regular(path, path / INIT, linked):
        return _PACKAGE
    package = read_package(path) if scripts and os.path.isdir(path) else None  # noqa: PTH112
    return None if package is None else Entry("script", package.main, package.fields)


def siblings(path: Path) -> list[str]:
    """Return the names of the files beside a path; none if they cannot be listed."""
    try:
        return os.listdir(path.parent)  # noqa: PTH208
    except OSError:
        return []


def _is_regular(path: Path, file: Path, linked: bool) -> bool:
    """Return whether the file of an entry is there.

    Args:
        path: The entry.
        file: The file that would be imported.
        linked: Whether the entry is a link.

    Raises:
        LoadError: The entry cannot be looked at, or its file is no regular file.
    """
    try:
        mode = os.stat(file).st_mode  # noqa: PTH116
    except ValueError:  # a name with a null byte
        return False
    except OSError as error:
        if linked and not os.path.exists(path):  # noqa: PTH110
            text = f"{path} is a link to a file that does not exist"
            raise _unreadable(text, path, "Fix or remove the link.") from None
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return False
        text = f"{path} cannot be read: {error.strerror}"  # a folder that this user may not enter
        remedy = f"Allow this user to read it, or name it _{path.name} to leave it out."
        raise _unreadable(text, path, remedy) from error
    if stat.S_ISREG(mode):
        return True
    if stat.S_ISDIR(mode):
        return False
    raise _unreadable(f"{file} is a FIFO, a socket or a device, not a file", file, "Remove it.")


def _unreadable(text: str, path: Path, remedy: str) -> LoadError:
    return LoadError(text, step="discover", path=path, remedy=remedy)


def may_require(path: Path, package: bool, text: bytes) -> bool:
    """Return whether a plugin may list distributions that it needs.

    Args:
        path: Its file or folder.
        package: Whether it is a folder.
        text: Its source.
    """
    return b"# /// script" in text or (
        package and any((path / name).is_file() for name in ("requirements.txt", "pyproject.toml"))
    )


def read_fields(path: Path) -> dict[str, object]:
    """Return the manifest fields in a `plugin.toml`; none if there is no such file.

    Raises:
        ManifestError: It is not valid TOML, or holds something else than fields.
    """
    try:
        table: dict[str, object] = read_toml(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ManifestError(
            f"{TOML} cannot be read: {error}", path=path, remedy="Fix the file."
        ) from error
    table.pop("tool", None)
    unknown = [
        Fault(key, f"is not a field. {did_you_mean(key, FIELDS)}".rstrip())
        for key in table
        if key not in FIELDS
    ]
    if unknown:
        raise ManifestError(
            f"{TOML} is not valid",
            faults=unknown,
            path=path,
            remedy="Fields are those of `veko.Manifest`; tables of other tools go under [tool].",
        )
    return table

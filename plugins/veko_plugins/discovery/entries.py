"""The entries of plugin folders: which of them are plugins, and what stands in `plugin.toml`.

Promise: nothing is imported or run.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from veko import LoadError, ManifestError
from veko.errors import Fault

from .._lib.regular_files import read_toml
from .._lib.versions import did_you_mean
from .._source.outline import FIELDS

__all__ = ["TOML", "is_plugin", "read_fields", "siblings"]

TOML: Final = "plugin.toml"


def siblings(path: Path) -> list[str]:
    """Return the names of the files beside a path; none if they cannot be listed."""
    try:
        return os.listdir(path.parent)  # noqa: PTH208
    except OSError:
        return []


def is_plugin(path: Path, file: Path, linked: bool) -> bool:
    """Return whether an entry of a plugin folder is a plugin: whether its file is there.

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

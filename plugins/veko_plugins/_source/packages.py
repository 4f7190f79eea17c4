"""Folders with scripts: what their `package.json` says, and which file of theirs is run.

`name`, `version`, `description`, `author`, `license`, `homepage`, `repository`, `engines` and
`peerDependencies` are fields of the manifest; the table `veko` has the others. (`dependencies` of
`package.json` are npm packages. Plugins that a plugin needs are `veko.dependencies`.)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from veko import ManifestError
from veko.errors import Fault

from .._lib.regular_files import open_regular
from .._lib.versions import did_you_mean
from .scripts import PACKAGE, SPELLINGS, SUFFIXES, is_script, manifest_fields

__all__ = ["Package", "main_file", "read_package"]

_LONGEST: Final = 2**20
_TABLE: Final = "veko"
_OWN: Final = (
    "name", "version", "description", "author", "license", "homepage", "repository", "engines",
    "peerDependencies",
)  # fmt: skip


class Package(msgspec.Struct, frozen=True):
    """A folder with a script.

    Attributes:
        main: The file that is run, relative to the folder.
        fields: The manifest fields that `package.json` spells out.
    """

    main: str
    fields: dict[str, Any]


def read_package(folder: Path) -> Package | None:
    """Read a folder that may hold a script.

    Raises:
        ManifestError: Its `package.json` is not valid, or names a file that is not there.
    """
    index = next((f"index{one}" for one in SUFFIXES if _is_file(folder / f"index{one}")), None)
    try:
        table = _read(folder / PACKAGE)
    except FileNotFoundError:
        return None if index is None else Package(index, {})
    except ManifestError:
        if index is None:  # a folder of something else
            return None
        raise
    main = _main(folder, table.get("main")) or index
    if main is None:
        if _TABLE not in table:
            return None
        raise ManifestError(
            f"{PACKAGE} leads to no script",
            path=folder / PACKAGE,
            remedy=f"Name one in `main`, or add index{SUFFIXES[0]}.",
        )
    return Package(main, _fields(table, folder))


def main_file(location: Path) -> Path:
    """Return the file that is run for a plugin's file or folder, in any language.

    If there is none, it is the one that a Python plugin would have.
    """
    if not location.is_dir():
        return location
    init = location / "__init__.py"
    if _is_file(init):
        return init
    try:
        package = read_package(location)
    except ManifestError:
        return location / PACKAGE
    return init if package is None else location / package.main


def _fields(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    more = table.get(_TABLE, {})
    path = folder / PACKAGE
    if not isinstance(more, dict):
        raise ManifestError(
            f"{PACKAGE} is not valid",
            faults=[Fault(_TABLE, "is not an object")],
            path=path,
            remedy="It has the fields of `veko.Manifest` that npm does not know.",
        )
    unknown = [key for key in more if key not in SPELLINGS]
    if unknown:
        raise ManifestError(
            f"{PACKAGE} is not valid",
            faults=[
                Fault(f"{_TABLE}.{key}", f"is not a field. {did_you_mean(key, SPELLINGS)}".rstrip())
                for key in unknown
            ],
            path=path,
            remedy="Fields are those of `veko.Manifest`.",
        )
    fields = manifest_fields({key: table[key] for key in _OWN if key in table})
    name = fields.get("name")
    if isinstance(name, str) and name.startswith("@"):  # the scope is npm's
        fields["name"] = name.partition("/")[2]
    return fields | manifest_fields(more)


def _main(folder: Path, named: object) -> str | None:
    """Return the file that `main` leads to, as Node finds it; it must lie in the folder."""
    if not isinstance(named, str) or not named:
        return None
    clean = os.path.normpath(named)
    if os.path.isabs(clean) or Path(clean).parts[0] == "..":  # noqa: PTH117
        return None
    tries = [clean, *(f"{clean}{one}" for one in SUFFIXES)]
    tries += [os.path.join(clean, f"index{one}") for one in SUFFIXES]  # noqa: PTH118
    return next((one for one in tries if is_script(one) and _is_file(folder / one)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        opened, state = open_regular(path)
        with opened:
            if state.st_size > _LONGEST:
                raise _bad(path, f"it is longer than {_LONGEST} bytes")
            table = msgspec.json.decode(opened.readall())
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise _bad(path, str(error.strerror or error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(path, str(error)) from error
    if not isinstance(table, dict):
        raise _bad(path, "it is not an object")
    return table


def _bad(path: Path, why: str) -> ManifestError:
    return ManifestError(f"{PACKAGE} cannot be read: {why}", path=path, remedy="Fix the file.")

"""Writes what was generated: all of it or nothing, and never over anything.

Everything is written beside its target first, under a hidden name that no other process uses, and
then moved there. A folder is claimed by creating it empty, which only one process can; the move
replaces that empty folder, and fails if anything was put into it meanwhile. A file is linked, which
fails if there is one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from .errors import ScaffoldError

__all__ = ["write_files"]

_WITHOUT_LINKS: Final = (errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""How a file system without links refuses one."""


def write_files(folder: Path, files: Mapping[PurePosixPath, str]) -> None:
    """Write files into a folder, which is created if it is not there.

    Args:
        folder: The folder.
        files: Their contents, by their paths in it. The first parts of these paths must not exist
            in the folder.

    Raises:
        ScaffoldError: One exists, or the folder cannot be written. Nothing was written.
    """
    made: list[Path] = []
    try:
        made += _made_folders(folder)
        with _staging(folder) as staging:
            for path, text in files.items():
                target = staging / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("x", encoding="utf-8", newline="\n") as file:
                    file.write(text)
            moved: list[Path] = []
            try:
                for part in dict.fromkeys(path.parts[0] for path in files):
                    moved.append(_move(staging / part, folder / part))
            except BaseException:
                for target in reversed(moved):
                    _remove(target)
                raise
    except BaseException as error:
        for one in reversed(made):
            with contextlib.suppress(OSError):  # another process has put something into it
                one.rmdir()
        if not isinstance(error, OSError):
            raise
        if isinstance(error, FileExistsError):
            raise _exists(Path(str(error.filename2 or error.filename or folder))) from error
        raise ScaffoldError(
            f"{folder} cannot be written: {error.strerror or error}",
            path=folder,
            remedy="Allow this user to write there, or choose another folder.",
        ) from error


def _exists(path: Path) -> ScaffoldError:
    return ScaffoldError(
        f"{path} exists",
        path=path,
        remedy="Nothing is overwritten: choose another name, or move it.",
    )


def _made_folders(folder: Path) -> Iterator[Path]:
    """Create a folder and those above it; yield each that was created."""
    above = [folder, *folder.parents]
    missing = [path for path in above if not os.path.lexists(path)]
    there = above[len(missing)]
    if not there.is_dir():
        raise ScaffoldError(
            f"{there} exists, and is not a folder",
            path=there,
            remedy="Nothing is overwritten: choose another folder, or move it.",
        )
    for one in reversed(missing):
        try:
            one.mkdir()
        except FileExistsError:  # another process was faster
            continue
        yield one


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    path = folder / f".veko-{secrets.token_hex(8)}"
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _move(source: Path, target: Path) -> Path:
    if not source.is_dir():
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            with target.open("xb") as file:
                file.write(source.read_bytes())
        return target
    if os.name == "nt":
        source.rename(target)  # refuses any target that exists
        return target
    target.mkdir()
    try:
        source.rename(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            target.rmdir()
        if isinstance(error, OSError) and error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
            raise FileExistsError(error.errno, error.strerror, str(target)) from error
        raise
    return target


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

"""Files that are written completely or not at all: a header, one JSON value a line, a checksum.

The first line has the format and its version, the last the number of lines and the SHA-256 of all
before it. Any tool can read such a file, it streams in bounded memory, and a part of it is never
mistaken for the whole.

Cost: two fsyncs a file; reading passes over it twice, once for the checksum.
Promise: it is written to a temporary file in the same folder, synced, and then renamed in one step,
after which the folder is synced; `kill -9` or a power cut leaves the old file or the new one.
Nothing is read from a file before its checksum was verified. The checksum detects damage, not
forgery.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import platform
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Final, NoReturn

import msgspec

from veko import VekoError

from .._lib.private_files import create_private, private_folder

__all__ = ["BackupError", "Header", "read_document", "write_document"]

_CHUNK: Final = 1 << 20
_HEAD: Final = 1 << 16
_TAIL: Final = 512
# The longest line: a storage value of 64 MiB with every byte escaped.
_LINE: Final = 1 << 29
_BINARY: Final = getattr(os, "O_BINARY", 0)
_COUNTER: Final = itertools.count(1)
_encode: Final = msgspec.json.Encoder().encode


class BackupError(VekoError):
    """A backup or a saved state cannot be written, or cannot be restored.

    Unless the message says otherwise, nothing was changed. The message names the file.
    """


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a document.

    Attributes:
        format: The kind of document: `veko-backup`, `veko-state`.
        version: The version of the format, from 1.
        made_at: The time of writing, in UTC.
        veko: The version of Veko that wrote it.
    """

    format: str
    version: int
    made_at: Annotated[datetime, msgspec.Meta(tz=True)]
    veko: str


class _End(msgspec.Struct, frozen=True):
    lines: int
    sha256: str


class _Footer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    end: _End


def write_document(
    path: Path,
    header: Header,
    values: Iterable[object],
    *,
    replace: bool,
    pause: Callable[[int], object] | None = None,
) -> None:
    """Write a document, completely or not at all.

    Args:
        path: The file; missing folders are created.
        header: The first line.
        values: The following lines, as values that msgspec turns into JSON.
        replace: Whether to replace an existing file; otherwise that is an error.
        pause: Called with the number of lines after every 64 lines.

    Raises:
        BackupError: It cannot be written there; an existing file is unchanged.
    """
    if path.is_dir():
        raise BackupError(
            "the path is a folder, not a file", path=path, remedy="Name a file in it."
        )
    if not replace and os.path.lexists(path):
        _refuse_existing(path)
    temporary = path.with_name(f"{_prefix()}{os.getpid()}.{next(_COUNTER)}.tmp")
    try:
        private_folder(path.parent)
        _sweep(path.parent)
        try:
            with os.fdopen(create_private(temporary), "wb", _CHUNK) as file:
                _write(file, header, values, pause)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(path)
            else:
                _name(temporary, path)
            _sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise _unwritable(error, path) from error


def _write(
    file: IO[bytes],
    header: Header,
    values: Iterable[object],
    pause: Callable[[int], object] | None,
) -> None:
    digest, number = hashlib.sha256(), 1
    line = _encode(header) + b"\n"
    digest.update(line)
    file.write(line)
    for value in values:
        line = _encode(value) + b"\n"
        digest.update(line)
        file.write(line)
        number += 1
        if pause is not None and not number & 63:
            pause(number)
    file.write(_encode(_Footer(_End(number, digest.hexdigest()))) + b"\n")


def _name(temporary: Path, path: Path) -> None:
    """Rename a file, unless one of that name exists."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        _refuse_existing(path)
    except OSError:  # no hard links here (FAT, some network file systems)
        if os.path.lexists(path):
            _refuse_existing(path)
        temporary.replace(path)


def _refuse_existing(path: Path) -> NoReturn:
    raise BackupError(
        "the file already exists", path=path, remedy="Name another file, or remove it."
    )


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # file systems that cannot sync folders
            raise
    finally:
        os.close(descriptor)


def _prefix() -> str:
    """Return the prefix of temporary files; it has the host, as process ids are per host."""
    return f".veko.{re.sub(r'[^A-Za-z0-9-]', '-', platform.node())[:64]}."


def _sweep(folder: Path) -> None:
    """Remove temporary files of processes that were killed while writing."""
    pattern = re.compile(re.escape(_prefix()) + r"(\d+)\.\d+\.tmp")
    for entry in os.listdir(folder):  # noqa: PTH208
        found = pattern.fullmatch(entry)
        if found is not None and int(found[1]) != os.getpid() and not _runs(int(found[1])):
            with contextlib.suppress(OSError):
                (folder / entry).unlink()


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True  # on Windows, os.kill would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _unwritable(error: OSError, path: Path) -> BackupError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "Free space on the disk, or name a file on another one."
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "Make the folder writable for this user, or name a file in another."
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        remedy = "A part of the path is a file, not a folder: name another path."
    else:
        remedy = "Name another file."
    return BackupError(
        f"the file cannot be written: {error.strerror or error}", path=path, remedy=remedy
    )


def read_document(
    path: Path, format: str, version: int, *, pause: Callable[[int], object] | None = None
) -> Iterator[bytes]:
    """Read a document, after its checksum was verified.

    Args:
        path: The file.
        format: The kind of document that it must be.
        version: The newest version that can be read.
        pause: Called with the number of lines after every 64 lines.

    Yields:
        The lines, each JSON, the header first.

    Raises:
        BackupError: The file cannot be read, is of another kind, has a newer version, is cut off,
            or was altered.
    """
    try:
        # Non-blocking: opening a pipe without a writer would block forever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
        with os.fdopen(descriptor, "rb", _CHUNK) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BackupError(
                    "it is not a regular file", path=path, remedy="Name a backup file."
                )
            _check_head(file, path, format, version)
            end = _check_whole(file, path)
            file.seek(0)
            left = end
            number = 0
            while left > 0:
                line = file.readline(min(left, _LINE))
                if not line:
                    raise _cut_off(path)
                left -= len(line)
                number += 1
                if pause is not None and not number & 63:
                    pause(number)
                yield line
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            remedy = "Check the path; backups are in .veko/backups/ by default."
        elif isinstance(error, IsADirectoryError):
            remedy = "Name a file in it."
        else:
            remedy = "Make it readable for this user."
        text = f"the file cannot be read: {error.strerror or error}"
        raise BackupError(text, path=path, remedy=remedy) from error


def _check_head(file: IO[bytes], path: Path, format: str, version: int) -> None:
    kind = format.removeprefix("veko-")
    try:
        header = msgspec.json.decode(file.readline(_HEAD), type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        header = None
    if header is None or header.format != format or header.version < 1:
        known = header.format if header is not None and header.format[:5] == "veko-" else None
        raise BackupError(
            f"it is not a Veko {kind}" + (f" but a {known.removeprefix('veko-')}" if known else ""),
            path=path,
            remedy=f"Name a file that Veko wrote as a {kind}.",
        )
    if header.version > version:
        raise BackupError(
            f"it has format {header.version} (written by Veko {header.veko}), "
            f"this Veko reads up to {version}",
            path=path,
            remedy="Use the newer Veko that wrote it.",
        )


def _check_whole(file: IO[bytes], path: Path) -> int:
    """Check the length and the checksum; return the offset of the last line."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _TAIL)
    file.seek(start)
    tail = file.read(size - start)
    cut = tail[:-1].rfind(b"\n") + 1
    try:
        if not tail.endswith(b"\n") or not cut:
            raise ValueError
        footer = msgspec.json.decode(tail[cut:], type=_Footer).end
    except ValueError:  # DecodeError is one
        raise _cut_off(path) from None
    end, lines, digest = start + cut, 0, hashlib.sha256()
    file.seek(0)
    left = end
    while left > 0:
        block = file.read(min(left, _CHUNK))
        if not block:
            break
        left -= len(block)
        lines += block.count(b"\n")
        digest.update(block)
        time.sleep(0)
    if (lines, digest.hexdigest()) != (footer.lines, footer.sha256):
        raise BackupError(
            "it was altered after it was written: its checksum does not match",
            path=path,
            remedy="Copy it again, or use an older one.",
        )
    return end


def _cut_off(path: Path) -> BackupError:
    remedy = "Copy it again, or use an older one."
    return BackupError("it is cut off: its last line is missing", path=path, remedy=remedy)

"""A log file that several processes append to and rotate.

Each record is one `write` at the end of the file, which the system does not mix with others. To
rotate, a process needs the file for itself: writers share a lock on it (`flock`), who rotates holds
it alone. There is no process that writes for the others, since its end would be the end of all
logs, and every record would cross a pipe; a lock costs a microsecond, ends with its process, and
works for applications that know nothing of each other.

A lock is worth something only on the file that the name stands for now, so after locking that is
compared (test_rotation_by_two_processes_loses_and_tears_nothing). It also finds files that others
have moved away, as logrotate does.

Promise: no line is lost or torn by rotation on a local file system. A file is created for this user
alone; one that exists keeps its mode, also when it is rotated. No wait is longer than `_PATIENCE`:
a process that was stopped with the lock in its hand keeps others from rotating, not from writing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import time
from pathlib import Path
from typing import Final

from veko import OptionError

from .._lib.private_files import open_private, private_folder
from .sinks import Sink

try:
    import fcntl

    _flock = fcntl.flock
    _ALONE, _SHARED, _NONE = (
        fcntl.LOCK_EX | fcntl.LOCK_NB,
        fcntl.LOCK_SH | fcntl.LOCK_NB,
        fcntl.LOCK_UN,
    )
except ImportError:  # Windows: one process, which closes the file before it renames it
    _ALONE = _SHARED = _NONE = 0

    def _flock(fd: int, operation: int, /) -> None:  # type: ignore[misc]
        """Do nothing."""


__all__ = ["LogFile", "open_log"]

_APPEND: Final = (
    os.O_WRONLY | os.O_CREAT | os.O_APPEND
    | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe that nobody reads would block the application
)  # fmt: skip
_PATIENCE: Final = 0.05
"""Seconds to wait for a lock."""
_PAUSE: Final = 0.2
"""Seconds until rotation, or a lock, is tried again after that failed."""
_MOVES: Final = 100
"""How often the file may be replaced while one record is written."""


class LogFile(Sink):
    """Appends to a file, and rotates it by size.

    Args:
        path: The file; its folder exists.
        max_bytes: The size in bytes at which it is rotated; 0 means never.
        backups: How many rotated files are kept.
    """

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        super().__init__(str(path))
        self._path = path
        self._most = max_bytes
        self._backups = backups
        self._descriptor: int | None = None
        self._process = 0
        self._regular = True
        self._torn = False
        self._closed = False
        self._rotates_at = 0.0
        self._locks_at = 0.0
        self._open()

    def write(self, line: str, record: logging.LogRecord) -> None:
        if self._closed:  # a logger still has it: it must not open its file again
            return
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        descriptor, size = self._locked()
        try:
            if self._is_full(size, len(data)):
                descriptor = self._rotate(descriptor, len(data))
            self._append(descriptor, data)
        finally:
            if self._descriptor is not None:
                _unlock(self._descriptor)

    def close(self) -> None:
        """Close the file for good."""
        with self.lock:  # type: ignore[union-attr]
            self._closed = True
            self._close()
        super().close()

    # -- the file

    def _open(self) -> int:
        try:
            descriptor = open_private(str(self._path), _APPEND)
        except FileNotFoundError:
            private_folder(self._path.parent)
            descriptor = open_private(str(self._path), _APPEND)
        self._regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._descriptor, self._process = descriptor, os.getpid()
        return descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _locked(self) -> tuple[int, int]:
        """Return the file that the name stands for, locked with others, and its size."""
        for _ in range(_MOVES):
            if self._process != os.getpid():  # forked: the lock would be shared with the parent
                self._close()
            descriptor = self._descriptor
            if descriptor is None:
                descriptor = self._open()
            if time.monotonic() >= self._locks_at and not _lock(descriptor, alone=False):
                self._locks_at = time.monotonic() + _PAUSE
            found = self._size_if_current(descriptor)
            if found is not None:
                return descriptor, found
            _unlock(descriptor)
            self._close()
        raise OSError("it is replaced all the time")

    def _size_if_current(self, descriptor: int) -> int | None:
        """Return the size of an open file; `None` if the name does not stand for it any more."""
        own = os.fstat(descriptor)
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return None
        same = (own.st_ino, own.st_dev) == (named.st_ino, named.st_dev)
        return own.st_size if same else None

    def _append(self, descriptor: int, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        written = os.write(descriptor, data)
        if written == len(data):
            self._torn = False
            return
        try:  # a signal, or a disk that is full: then this raises
            written += os.write(descriptor, data[written:])
        finally:
            if 0 < written < len(data):
                self._torn = not self._take_back(descriptor, written)
        if written < len(data):
            raise OSError("only a part was written")
        self._torn = False

    def _take_back(self, descriptor: int, written: int) -> bool:
        """Remove the begin of a line at the end of the file; return whether it is gone."""
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        if self._regular and _lock(descriptor, alone=True) and os.fstat(descriptor).st_size == end:
            os.ftruncate(descriptor, end - written)
            return True
        return False

    # -- rotation

    def _is_full(self, size: int, more: int) -> bool:
        if not self._regular or not 0 < self._most < size + more or not size:
            return False
        return time.monotonic() >= self._rotates_at

    def _rotate(self, descriptor: int, more: int) -> int:
        """Rotate, unless another process has; return the file to write to, locked."""
        if not _lock(descriptor, alone=True):
            self._rotates_at = time.monotonic() + _PAUSE
        else:
            found = self._size_if_current(descriptor)
            if found is not None and self._is_full(found, more):
                try:
                    self._rename(descriptor)
                except OSError:  # the folder cannot be written to: the file grows
                    self._rotates_at = time.monotonic() + _PAUSE
        if self._descriptor is not None:
            _unlock(descriptor)
        return self._locked()[0]

    def _rename(self, descriptor: int) -> None:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if sys.platform == "win32":
            self._close()
        with contextlib.suppress(FileNotFoundError):
            (self._numbered(self._backups) if self._backups else self._path).unlink()
        for number in range(self._backups - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._numbered(number).replace(self._numbered(number + 1))
        if self._backups:
            self._path.replace(self._numbered(1))
        # Made here, with the mode, before any other process can make it with another one.
        with contextlib.suppress(OSError):
            os.close(os.open(self._path, _APPEND | os.O_EXCL, mode))
            self._path.chmod(mode)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _lock(descriptor: int, *, alone: bool) -> bool:
    """Lock a file, with others or alone; return whether that was possible in time."""
    how = _ALONE if alone else _SHARED
    until = 0.0
    while True:
        try:
            _flock(descriptor, how)
        except BlockingIOError:
            now = time.monotonic()
            until = until or now + _PATIENCE
            if now >= until:
                return False
            time.sleep(0.000_2)
        except OSError:  # a file system without locks
            return not alone
        else:
            return True


def _unlock(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        _flock(descriptor, _NONE)


def open_log(path: Path, max_bytes: int = 10_000_000, backups: int = 5) -> LogFile:
    """Return a log handler for a file that several processes may write to; close it at the end.

    Its folder is created if it is missing.

    Args:
        path: The file.
        max_bytes: The size in bytes at which it is rotated; 0 means never.
        backups: How many rotated files are kept.

    Raises:
        OptionError: It cannot be written.
    """
    try:
        private_folder(path.parent)
        return LogFile(path, max_bytes, backups)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OptionError(
            f"the log file cannot be written: {reason}",
            path=path,
            remedy="Give a file in a folder that can be written to.",
        ) from error

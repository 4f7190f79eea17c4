"""One owner for a file: an advisory lock that the system releases when the process dies.

The storage reads from memory, so its answers would be wrong if another process wrote the file. The
lock is on a file beside the database, because closing a descriptor of the database itself would
drop the locks that SQLite holds on it. The lock file is never removed: that would be a race.

A forked child would inherit the lock and keep it after its parent has died, so a child closes its
copies at once. (`fcntl.lockf` is not inherited, but any code of the process that opens and closes
the lock file, as a copy of the folder does, would silently drop it.)
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Final

from veko.errors import StorageError

from .._lib.private_files import PRIVATE

__all__ = ["FileLock"]

if sys.platform == "win32":
    import msvcrt

    # The lock is on a byte beyond the text, so that other processes can read the text.
    _AT = 1 << 20

    def _take(descriptor: int) -> None:
        os.lseek(descriptor, _AT, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


# O_NONBLOCK: a FIFO of that name would hold up reading its owner's process id.
_FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_held: Final[set[FileLock]] = set()
_changing: Final = threading.Lock()
"""Held while `_held` and the open descriptors differ, and by each fork."""


class FileLock:
    """Holds `<database>.lock` from its creation until `release()`, or until a fork in the child.

    Args:
        database: The file to own.

    Raises:
        StorageError: Another engine holds the lock (the message has its process id), or the lock
            file cannot be created.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, database: Path) -> None:
        self._descriptor: int | None = None
        path = database.with_name(database.name + ".lock")
        with _changing:
            try:
                descriptor = os.open(path, _FLAGS, PRIVATE)
            except OSError as error:
                raise StorageError(
                    f"the storage's lock file cannot be opened: {error.strerror}",
                    path=path,
                    remedy="Make the folder and its files writable for this user",
                ) from None
            try:
                _take(descriptor)
            except OSError:
                owner = _owner(descriptor)
                os.close(descriptor)
                raise StorageError(
                    f"the storage is in use by another engine (process {owner or 'unknown'})",
                    path=database,
                    remedy="Stop that process, or give this application a storage file of its own",
                ) from None
            self._descriptor = descriptor
            _held.add(self)
        with contextlib.suppress(OSError):  # the number is for the message only
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        with _changing:
            self._close()

    def _close(self) -> None:
        _held.discard(self)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _owner(descriptor: int) -> str:
    try:
        return os.read(descriptor, 20).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _forget_in_child() -> None:
    """Close a forked child's copies: the lock is its parent's, and ends with that process."""
    for lock in tuple(_held):
        with contextlib.suppress(OSError):  # the child may have closed all descriptors already
            lock._close()
    _changing.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_changing.acquire,
        after_in_parent=_changing.release,
        after_in_child=_forget_in_child,
    )

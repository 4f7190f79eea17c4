"""One owner for a file: an advisory lock that the system releases when the process dies.

The storage reads from memory, so its answers would be wrong if another process wrote the file. The
lock is on a file beside the database, because closing a descriptor of the database itself would
drop the locks that SQLite holds on it. The lock file is never removed: that would be a race.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from veko.errors import StorageError

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


class FileLock:
    """Holds `<database>.lock` from its creation until `release()`.

    Args:
        database: The file to own.

    Raises:
        StorageError: Another engine holds the lock (the message has its process id), or the lock
            file cannot be created.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, database: Path) -> None:
        path = database.with_name(database.name + ".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            raise StorageError(
                f"the storage's lock file cannot be opened: {error.strerror}",
                path=path,
                remedy="Make the folder and its files writable for this user",
            ) from None
        try:
            _take(descriptor)
        except OSError:
            owner = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StorageError(
                f"the storage is in use by another engine (process {owner or 'unknown'})",
                path=database,
                remedy="Stop that process, or give this application a storage file of its own",
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

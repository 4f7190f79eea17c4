"""One owner for a file: an advisory lock that the system lets go of when its process dies.

The storage reads from memory, so a second writer would make it lie; hence one engine a file. The
lock is on a file beside the database, because closing a descriptor of the database itself would
drop the locks that SQLite holds on it. The file is left there: removing it would be a race.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from veko.errors import StorageError

__all__ = ["FileLock"]

if sys.platform == "win32":
    import msvcrt

    # Locked beyond the text, which others may then read.
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
    """Holds `<database>.lock` from the moment it is made until `release()`.

    Raises:
        StorageError: Another engine holds it (the message names its process), or the file cannot
            be made.
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
        """Let go; twice is fine."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

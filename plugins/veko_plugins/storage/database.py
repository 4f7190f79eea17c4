"""The SQLite file: opening, one transaction, reading a namespace, a checkpoint. No event loop.

At most three connections, each used by one thread at a time: the writer, a reader beside it if the
writer is in a thread, and the checkpointer. Nothing here waits for a lock: the caller decides
whether to try again.

Cost: a transaction of one row about 20 us, of a hundred rows about 0.5 ms, all in SQLite itself.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

from veko.errors import StorageError

from .._lib.private_files import create_private, private_folder
from .codec import Packed
from .file_lock import FileLock
from .snapshots import Snapshot, exchange, remove

__all__ = ["MEMORY", "Changes", "Database", "Overlay", "is_busy"]

MEMORY: Final = ":memory:"

# "veko" in ASCII; with it, `file` and this class recognise the file.
_APPLICATION: Final = 0x76656B6F
_VERSION: Final = 1
# Bytes of an SQLite file before its first table.
_HEADER: Final = 100
# Bytes; the log file is truncated to this size when it restarts.
_LOG_SIZE: Final = 16 << 20
_SCHEMA: Final = """
CREATE TABLE entry (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID
"""
_SET: Final = (
    "INSERT INTO entry VALUES (?, ?, ?) "
    "ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value"
)
_DELETE: Final = "DELETE FROM entry WHERE namespace = ? AND key = ?"
_CLEAR: Final = "DELETE FROM entry WHERE namespace = ?"


class Overlay(Protocol):
    """Changes to a namespace: cleared first if `cleared`, then each key set or deleted."""

    @property
    def cleared(self) -> bool: ...
    @property
    def entries(self) -> Mapping[str, bytes | None]: ...


class Changes(Overlay, Protocol):
    """Changes, and the namespace that they belong to.

    If they are `whole`, they are carried out together or not at all; otherwise each entry was set
    or deleted for itself.
    """

    @property
    def namespace(self) -> str: ...
    @property
    def whole(self) -> bool: ...


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another program holds the database, so that trying again may help."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class _FileGone(sqlite3.OperationalError):
    """The file was removed or replaced while it was in use."""


_SPACE: Final = "Free space on the disk; what was stored before is unharmed"
_IN_USE: Final = "Another program has the file open for writing: close it"
_RIGHTS: Final = "Make the folder and its files writable for this user"
_BACKUP: Final = "Restore it from a backup"
_PATH: Final = "Give the storage a path that is a file in a folder"
_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: _SPACE,
    sqlite3.SQLITE_IOERR: _SPACE,
    sqlite3.SQLITE_TOOBIG: _SPACE,
    sqlite3.SQLITE_BUSY: _IN_USE,
    sqlite3.SQLITE_LOCKED: _IN_USE,
    sqlite3.SQLITE_READONLY: _RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _RIGHTS,
    sqlite3.SQLITE_PERM: _RIGHTS,
    sqlite3.SQLITE_CORRUPT: _BACKUP,
    sqlite3.SQLITE_NOTADB: _BACKUP,
}
_SYSTEM_REMEDIES: Final = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.EEXIST: _PATH,
    errno.ENOTDIR: _PATH,
    errno.EISDIR: _PATH,
}


class Database:
    """An open storage file, locked for this process.

    Args:
        path: The file; created, with its folders, if it does not exist. `None`: in memory.
        full: fsync at each commit (`synchronous=FULL`), so that commits survive a power cut too.

    Raises:
        StorageError: The file is damaged, is not a storage, was written by a newer version, is in
            use, or is not writable. It is unchanged then.
    """

    def __init__(self, path: Path | None, *, full: bool = False) -> None:
        self.path = path
        self._full = full and path is not None
        self._lock: FileLock | None = None
        self._open: list[sqlite3.Connection] = []
        try:
            if path is not None:
                try:
                    private_folder(path.parent)
                except OSError as error:
                    raise self.error(error) from None
                self._lock = FileLock(path)
                self._check_file(path)
            self._writer = self._connect()
            self._prepare(self._writer)
            self._reader = self._connect() if self._full else self._writer
            self._checkpointer = self._connect() if path is not None else None
            self._identity = self._identify()
        except sqlite3.Error as error:
            self.close()
            raise self.opening_error(error) from error
        except BaseException:
            self.close()
            raise

    def _check_file(self, path: Path) -> None:
        """Refuse a file that has lost its content, and create one that does not exist.

        SQLite takes an empty file for a new database, so one that was cut off would be an empty
        storage, without a word. The file is therefore made elsewhere and renamed: whenever it is
        there, it has its first page, even if the process was killed while it made it.
        """
        log = path.with_name(f"{path.name}-wal")
        try:
            state = path.stat()
        except FileNotFoundError:
            if log.exists() and log.stat().st_size:
                raise StorageError(
                    f"the storage file is gone, and its log {log.name} is still there",
                    path=path,
                    remedy="Put the file back, restore it from a backup, or move the log away "
                    "too to start with an empty storage",
                ) from None
            self._create(path)
            return
        except OSError as error:
            raise self.error(error) from None
        if not stat.S_ISREG(state.st_mode):
            raise self.error(FileExistsError(errno.EEXIST, f"{path.name} is not a regular file"))
        if state.st_size < _HEADER:
            raise self.damage(f"it is cut off: {state.st_size} bytes are left")

    def _create(self, path: Path) -> None:
        # The rename needs no sync of its own: SQLite syncs the folder with the first commit that
        # has to survive a power cut, as its log is a new file there.
        new = path.with_name(f"{path.name}.new")
        try:
            remove(new)
            remove(path)  # an empty log
            os.close(create_private(new))  # SQLite gives its other files the mode of this one
            connection = sqlite3.connect(new, isolation_level=None)
            try:
                self._fill(connection)
            finally:
                connection.close()
            new.replace(path)
        except OSError as error:
            raise self.error(error) from None

    def _fill(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            MEMORY if self.path is None else self.path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )
        self._open.append(connection)
        # The writer is tuned after the check: a database of another application stays as it is.
        if self.path is not None and len(self._open) > 1:
            self._tune(connection)
        return connection

    def _tune(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._full else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_SIZE}")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        def number(pragma: str) -> int:
            value: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
            return value

        application, version = number("application_id"), number("user_version")
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != _APPLICATION and (application or version or tables):
            raise StorageError(
                "the file is a database, but not a Veko storage",
                path=self.path,
                remedy="Give the storage a file of its own",
            )
        if version > _VERSION:
            raise StorageError(
                f"the storage has format {version}, this Veko reads up to {_VERSION}",
                path=self.path,
                remedy="Use the newer Veko that wrote it",
            )
        if tables:
            fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if fault != "ok":
                raise sqlite3.DatabaseError(fault)
        self._tune(connection)
        if not tables:
            self._fill(connection)
        connection.execute("BEGIN IMMEDIATE")
        # Finds nothing, but needs the right to write, which beginning alone does not.
        connection.execute("DELETE FROM entry WHERE 0")
        connection.execute("COMMIT")

    def error(self, error: BaseException) -> StorageError:
        """Return an error of SQLite's or the system's as one of this file's, with its remedy."""
        if isinstance(error, sqlite3.Error):
            what, code = str(error), getattr(error, "sqlite_errorcode", None)
            remedy = None if code is None else _REMEDIES.get(code & 0xFF)
        elif isinstance(error, OSError):
            what = error.strerror or str(error)
            remedy = _SYSTEM_REMEDIES.get(error.errno) if error.errno is not None else None
        else:
            what, remedy = repr(error), None
        if isinstance(error, _FileGone):
            remedy = "Stop the application, put the file back, and start it again"
        return StorageError(f"the storage failed: {what}", path=self.path, remedy=remedy)

    def opening_error(self, error: sqlite3.Error) -> StorageError:
        """Return the error for a file that could not be opened; damage gets a remedy of its own."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self.damage(str(error))
        return self.error(error)

    def damage(self, what: str) -> StorageError:
        """Return the error for a damaged file, which says how to continue."""
        return StorageError(
            f"the storage file is damaged ({what}); nothing was changed in it",
            path=self.path,
            remedy="Move it away with its -wal and -shm files, start with an empty storage, and "
            "restore a backup: `veko restore FILE`",
        )

    def _identify(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            found = self.path.stat()
        except OSError:
            return -1, -1
        return found.st_dev, found.st_ino

    def apply(self, changes: Iterable[Changes]) -> int:
        """Write changes in one transaction.

        Returns:
            The approximate number of pages written.

        Raises:
            sqlite3.Error: Nothing was written.
        """
        run = self._writer
        if self._identify() != self._identity:
            # SQLite would continue to write to the deleted file; this check costs 2 us.
            raise _FileGone("the file was removed or replaced while it was in use")
        sets: list[tuple[str, str, bytes]] = []
        deletes: list[tuple[str, str]] = []
        clears: list[tuple[str]] = []
        size = 0
        for change in changes:
            namespace = change.namespace
            if change.cleared:
                clears.append((namespace,))
            for key, value in change.entries.items():
                if value is not None:
                    sets.append((namespace, key, value))
                    size += len(value)
                elif not change.cleared:
                    deletes.append((namespace, key))
        pages = len(sets) + len(deletes) + 64 * len(clears) + (size >> 12)
        if len(sets) == 1 and not deletes and not clears:
            run.execute(_SET, sets[0])  # a single statement is a transaction, at half the cost
            return pages
        run.execute("BEGIN IMMEDIATE")
        try:
            if clears:
                run.executemany(_CLEAR, clears)
            if deletes:
                run.executemany(_DELETE, deletes)
            if sets:
                run.executemany(_SET, sets)
            run.execute("COMMIT")
        except BaseException:
            if run.in_transaction:
                run.execute("ROLLBACK")
            raise
        return pages

    def read(self, namespace: str) -> dict[str, object]:
        """Return all entries of a namespace, encoded."""
        rows = self._reader.execute(
            "SELECT key, value FROM entry WHERE namespace = ? ORDER BY key", (namespace,)
        )
        return {key: Packed(value) for key, value in rows}

    def namespaces(self) -> list[str]:
        """Return the namespaces that have entries, sorted."""
        rows = self._reader.execute("SELECT DISTINCT namespace FROM entry ORDER BY namespace")
        return [name for (name,) in rows]

    def snapshot(self) -> Snapshot:
        """Return what is committed now, to be read in a thread while writing continues."""
        return Snapshot(self._writer.serialize() if self.path is None else self.path)

    def exchange(self, staged: Path) -> int:
        """Exchange current entries for the staged ones; see `snapshots.exchange`.

        Returns:
            The number of entries that came and went.

        Raises:
            sqlite3.Error: Nothing was changed.
        """
        if self.path is None:
            return exchange(self._writer, staged)
        if self._identify() != self._identity:
            raise _FileGone("the file was removed or replaced while it was in use")
        connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None)
        try:
            self._tune(connection)
            return exchange(connection, staged)
        finally:
            connection.close()

    def checkpoint(self, mode: str = "PASSIVE") -> int:
        """Copy the log into the database; call it in a thread, as it waits for the disk.

        Returns:
            The number of pages in the log when it began.
        """
        if self._checkpointer is None:
            return 0
        row = self._checkpointer.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return int(row[1])

    def finish(self) -> None:
        """Copy the whole log into the database, so that one file has everything, and close."""
        try:
            self.checkpoint("TRUNCATE")
        except sqlite3.Error:
            pass  # the log stays beside the file and is read at the next start
        finally:
            self.close()

    def close(self) -> None:
        """Close the connections and release the lock; a second call does nothing."""
        while self._open:
            self._open.pop().close()
        if self._lock is not None:
            self._lock.release()

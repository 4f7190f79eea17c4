"""Snapshots of a whole storage, and the exchange of namespaces for staged ones.

A snapshot is a connection of its own in a read transaction: it sees what was committed when it
began, in bounded memory, while the engine continues to write. New entries are staged in a separate
file, which may take any time, and then exchanged in one transaction. A second exchange brings back
the former entries.

Cost: a snapshot costs 1 us a row, and the log cannot restart meanwhile; an exchange costs 3 us a
row in a thread, while writes wait. In memory (`:memory:`) both copy on the loop.
Promise: an exchange is complete or has no effect, even on `kill -9`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from .._lib.private_files import create_private
from .codec import Packed, check_key, pack, unpack

__all__ = ["Snapshot", "Staged", "exchange", "temporary_of"]

# Entries that expire are left out: they would have expired when a backup is restored. The bytes are
# those that `codec.expiry_of` looks at.
_LASTING: Final = (
    "NOT (substr(value, 1, 1) = x'c7' AND substr(value, 3, 1) = x'0c' "
    "OR substr(value, 1, 1) = x'c8' AND substr(value, 4, 1) = x'0c' "
    "OR substr(value, 1, 1) = x'c9' AND substr(value, 6, 1) = x'0c' "
    "OR substr(value, 1, 2) = x'd80c')"
)
_ALL: Final = f"SELECT namespace, key, value FROM entry WHERE {_LASTING} ORDER BY namespace, key"
_STAGED_ALL: Final = "SELECT namespace, key, value FROM entry"
_STAGED: Final = """
CREATE TABLE entry (
    namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (namespace, key)
) WITHOUT ROWID;
CREATE TABLE name (namespace TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_NAMED: Final = "namespace IN (SELECT namespace FROM staged.name)"
_ADD: Final = "INSERT INTO entry VALUES (?, ?, ?)"
_BATCH: Final = 256


class Snapshot:
    """A storage as it was at one moment; for one thread at a time.

    Args:
        source: The file, or a copy of what is in memory.
    """

    def __init__(self, source: Path | bytes) -> None:
        if isinstance(source, bytes):
            self._connection = sqlite3.connect(":memory:", check_same_thread=False)
            self._connection.deserialize(source)
            return
        self._connection = sqlite3.connect(
            source, timeout=5.0, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute("PRAGMA query_only = ON")
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT 1 FROM entry LIMIT 1").fetchone()  # fixes what is seen
        except BaseException:
            self._connection.close()
            raise

    def __len__(self) -> int:
        """The number of entries, without those that expire."""
        (count,) = self._connection.execute(
            f"SELECT count(*) FROM entry WHERE {_LASTING}"
        ).fetchone()
        return int(count)

    def rows(self) -> Iterator[tuple[str, str, bytes]]:
        """Iterate over namespace, key and encoded value of every entry that does not expire."""
        return iter(self._connection.execute(_ALL))

    @staticmethod
    def value(encoded: bytes) -> object:
        """Decode a value.

        Raises:
            StorageError: It is damaged.
        """
        return unpack(Packed(encoded))

    def close(self) -> None:
        """End the transaction and close the connection."""
        self._connection.close()


class Staged:
    """Entries that will be exchanged into a storage; for one thread at a time.

    Args:
        path: The file for them; an existing one is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        remove(path)
        os.close(create_private(path))
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = OFF")  # an incomplete file is never used
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_STAGED)
        self._connection.execute("BEGIN")
        self._rows: list[tuple[str, str, bytes]] = []

    def name(self, namespaces: Iterable[str]) -> None:
        """Add namespaces to replace: all their entries go, even if none are staged for them."""
        for namespace in namespaces:
            check_key(namespace)
            self._connection.execute("INSERT OR IGNORE INTO name VALUES (?)", (namespace,))

    def add(self, namespace: str, key: str, value: object) -> None:
        """Add an entry.

        Raises:
            StorageError: It cannot be stored.
        """
        check_key(key)
        self._add(namespace, key, pack(key, value)[1])

    def add_encoded(self, namespace: str, key: str, encoded: bytes) -> None:
        """Add an entry whose value is encoded, as `Snapshot.rows` yields it."""
        check_key(key)
        self._add(namespace, key, encoded)

    def _add(self, namespace: str, key: str, encoded: bytes) -> None:
        self._rows.append((namespace, key, encoded))
        if len(self._rows) >= _BATCH:
            self._write()

    def _write(self) -> None:
        rows, self._rows = self._rows, []
        self._connection.executemany(_ADD, rows)

    def finish(self) -> None:
        """Finish adding, so that it can be exchanged; a second call does nothing."""
        if self._connection.in_transaction:
            self._write()
            self._connection.execute("COMMIT")
        self._connection.close()

    def entries(self) -> dict[str, dict[str, bytes]]:
        """Return the finished entries by namespace and key."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            found: dict[str, dict[str, bytes]] = {
                name: {} for (name,) in connection.execute("SELECT namespace FROM name")
            }
            for namespace, key, value in connection.execute(_STAGED_ALL):
                found.setdefault(namespace, {})[key] = value
        return found

    def refill(self, entries: dict[str, dict[str, bytes]]) -> None:
        """Exchange the finished entries for others."""
        rows = [(name, key, value) for name, one in entries.items() for key, value in one.items()]
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("DELETE FROM entry")
            connection.executemany(_ADD, rows)

    def remove(self) -> None:
        """Close and remove the file; a second call does nothing."""
        self._connection.close()
        remove(self.path)


def remove(path: Path) -> None:
    """Remove a database and the files that SQLite may have left beside it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


def temporary_of(path: Path) -> Path:
    """Return the path for staging: beside the storage, on the same disk, one at a time."""
    return path.with_name(path.name + ".staged")


def exchange(connection: sqlite3.Connection, staged: Path) -> int:
    """Exchange the entries of the staged namespaces for the staged ones, in one transaction.

    Args:
        connection: A connection to the storage.
        staged: The finished file of a `Staged`; afterwards it has the former entries.

    Returns:
        The number of entries that came and went.

    Raises:
        sqlite3.Error: Nothing was changed.
    """
    connection.execute("ATTACH ? AS staged", (str(staged),))
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            moved = 0
            for statement in (
                f"CREATE TABLE staged.former AS SELECT * FROM main.entry WHERE {_NAMED}",
                f"DELETE FROM main.entry WHERE {_NAMED}",
                "INSERT INTO main.entry SELECT namespace, key, value FROM staged.entry "
                "WHERE TRUE ORDER BY namespace, key",
                "DROP TABLE staged.entry",
                "ALTER TABLE staged.former RENAME TO entry",
            ):
                moved += max(0, connection.execute(statement).rowcount)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    finally:
        connection.execute("DETACH staged")
    return moved

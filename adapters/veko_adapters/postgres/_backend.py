"""The backend: three connections, one each for writing, reading and following.

A notification says that there are changes; they are then read from their table. So none is missed
that came before the connection listened, and none is limited in size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg import exceptions as pg

from veko.errors import OptionError, StorageError
from veko_plugins.storage import (
    HEARTBEAT,
    Changes,
    Contents,
    Lagged,
    Record,
    Unreachable,
    location_of,
    split_prefix,
)

from .._storage import OneChange, packed, records
from ._schema import FUNCTION, TABLES

__all__ = ["PostgresBackend"]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"  # pyright: ignore[reportInvalidTypeArguments]

# Seconds.
_CONNECT: Final = 3.0
_WAIT: Final = 0.8 * HEARTBEAT
# An advisory lock, so that processes that start together create the tables one after the other.
_LOCK: Final = 0x76656B6F
_GONE: Final = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a broken connection whose transaction is to be ended
    pg.PostgresConnectionError,
    pg.CannotConnectNowError,
    pg.AdminShutdownError,
    pg.CrashShutdownError,
    pg.IdleSessionTimeoutError,
    pg.TooManyConnectionsError,
    pg.ReadOnlySQLTransactionError,
    pg.TransactionRollbackError,
)
_LOGIN: Final = (
    pg.InvalidAuthorizationSpecificationError,
    pg.InvalidCatalogNameError,
)


class PostgresBackend:
    """A PostgreSQL server; see `StorageBackend`.

    Args:
        url: Its URL.

    Raises:
        OptionError: The URL is not valid.
    """

    def __init__(self, url: str) -> None:
        self._url, self._prefix = split_prefix(url)
        self.location = location_of(url)
        self._connections: dict[str, Connection] = {}
        self._locks = {role: asyncio.Lock() for role in ("write", "read", "follow")}

    async def open(self) -> None:
        """Connect, and create what is missing."""
        async with self._connection("write") as connection:
            found = await connection.fetchval(
                "SELECT count(*) FROM pg_proc WHERE proname = $1 AND pg_function_is_visible(oid)",
                f"{self._prefix}_write_1",
            )
            if not found:
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                    await connection.execute(self._named(TABLES))
                    await connection.execute(self._named(FUNCTION))

    async def load(self) -> Contents:
        """Return all entries, of one moment."""
        async with (
            self._connection("read") as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            revision = await self._revision(connection)
            rows = await connection.fetch(self._named("SELECT namespace, key, value FROM %_entry"))
        entries: dict[str, dict[str, bytes]] = {}
        for namespace, key, value in rows:
            entries.setdefault(namespace.decode(), {})[key.decode()] = value
        return Contents(entries, revision)

    async def follow(self, revision: int) -> AsyncIterator[Sequence[Record]]:
        """Yield the changes after a revision."""
        notified = asyncio.Event()

        def wake(*_: object) -> None:
            notified.set()

        async with self._connection("follow") as connection:
            connection.add_termination_listener(wake)
            await connection.add_listener(self._prefix, wake)
            try:
                while True:
                    notified.clear()
                    changes = await self._changes(connection, revision)
                    if changes:
                        revision = changes[-1].revision
                    yield changes
                    if not changes:
                        try:
                            async with asyncio.timeout(_WAIT):
                                await notified.wait()
                        except TimeoutError:
                            pass
            finally:
                connection.terminate()

    async def _revision(self, connection: Connection) -> int:
        return int(await connection.fetchval(self._named("SELECT revision FROM %_head")) or 0)

    async def _changes(self, connection: Connection, revision: int) -> list[Record]:
        rows = await connection.fetch(
            self._named(
                "SELECT revision, changes FROM %_change WHERE revision > $1 "
                "ORDER BY revision LIMIT 500"
            ),
            revision,
        )
        if not rows:
            if await self._revision(connection) < revision:
                raise Lagged(f"{self.location} has lost changes")
            return []
        changes: list[Record] = []
        for number, data in rows:
            if number != revision + 1 or not data:
                if changes:
                    break  # the next turn reports it
                raise Lagged(f"{self.location} keeps no changes after {revision}")
            revision = number
            changes += records(number, data)
        return changes

    async def write(self, changes: Sequence[Changes], token: str) -> int:
        """Carry out changes in one transaction."""
        cleared: list[bytes] = []
        delete_in: list[bytes] = []
        deleted: list[bytes] = []
        set_in: list[bytes] = []
        keys: list[bytes] = []
        values: list[bytes] = []
        for one in changes:
            namespace = one.namespace.encode()
            if one.cleared:
                cleared.append(namespace)
            for key, value in one.entries.items():
                if value is not None:
                    set_in.append(namespace)
                    keys.append(key.encode())
                    values.append(value)
                elif not one.cleared:
                    delete_in.append(namespace)
                    deleted.append(key.encode())
        columns = (cleared, delete_in, deleted, set_in, keys, values)
        return await self._write(token, packed(changes), columns, False, None)

    async def get(self, namespace: str, key: str) -> bytes | None:
        """Return the encoded value of an entry, or `None`."""
        query = self._named("SELECT value FROM %_entry WHERE namespace = $1 AND key = $2")
        async with self._connection("read") as connection:
            value: bytes | None = await connection.fetchval(query, namespace.encode(), key.encode())
        return value

    async def compare_and_set(
        self, namespace: str, key: str, expected: bytes | None, value: bytes | None, token: str
    ) -> int | None:
        """Set or delete an entry if its encoded value is the expected one."""
        change, name = OneChange(namespace, {key: value}), [namespace.encode()]
        columns: tuple[list[bytes], ...]
        if value is None:
            columns = ([], name, [key.encode()], [], [], [])
        else:
            columns = ([], [], [], name, [key.encode()], [value])
        revision = await self._write(token, packed([change]), columns, True, expected)
        return None if revision < 0 else revision

    async def _write(
        self,
        token: str,
        changes: bytes,
        columns: Sequence[list[bytes]],
        compare: bool,
        expected: bytes | None,
    ) -> int:
        query = self._named("SELECT %_write_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
        async with self._connection("write") as connection:
            revision: Any = await connection.fetchval(
                query, token, changes, *columns, compare, expected
            )
        return int(revision)

    async def close(self) -> None:
        """Close all connections."""
        while self._connections:
            self._connections.popitem()[1].terminate()

    def _named(self, text: str) -> str:
        return text.replace("%_", f"{self._prefix}_").replace("'%'", f"'{self._prefix}'")

    @asynccontextmanager
    async def _connection(self, role: str) -> AsyncIterator[Connection]:
        """Yield a role's connection; it is given up if what is done with it does not end well."""
        async with self._locks[role]:
            try:
                connection = self._connections.get(role)
                if connection is None or connection.is_closed():
                    connection = self._connections[role] = await self._connect()
                yield connection
            except _LOGIN as error:
                self._give_up(role)
                raise StorageError(
                    f"{self.location} refuses the login: {error}",
                    remedy="Check user, password and database in the URL",
                ) from None
            except (*_GONE, TimeoutError) as error:
                self._give_up(role)
                why = str(error) or type(error).__name__
                raise Unreachable(f"{self.location} is not reached: {why}") from None
            except asyncpg.PostgresError as error:
                raise StorageError(f"{self.location} refuses: {error}") from None
            except BaseException:
                self._give_up(role)
                raise

    def _give_up(self, role: str) -> None:
        connection = self._connections.pop(role, None)
        if connection is not None:
            connection.terminate()

    async def _connect(self) -> Connection:
        try:
            connection: Connection = await asyncpg.connect(self._url, timeout=_CONNECT)  # pyright: ignore[reportArgumentType]
        except (ValueError, asyncpg.ClientConfigurationError) as error:
            raise OptionError(
                f"storage {self.location} is not valid: {error}",
                remedy="Use postgresql://user:password@host:port/database",
            ) from None
        return connection

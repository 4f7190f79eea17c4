"""Which tables belong to which plugin, and what becomes of them when the plugin is gone.

Unloading a plugin, or deleting its files, leaves its tables. An operator exports or purges them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec
from sqlalchemy import Connection, MetaData, Table, func, inspect, select, text
from sqlalchemy.dialects.postgresql import ENUM
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from veko import NotFoundError

from .._lib.private_files import create_private, private_folder
from .engines import WRITES
from .errors import DatabaseError, reason_of
from .migrations import HISTORY, TABLES, version_table
from .queries import QUIET

__all__ = ["Owned", "export", "owned", "purge"]

_CHUNK: Final = 1000
_FORMAT: Final = "veko database export 1"


class Owned(msgspec.Struct, frozen=True):
    """What a plugin has in the database.

    Attributes:
        plugin: The plugin's name.
        tables: Its tables, by name, with the number of rows.
        revisions: The revisions of migrations that its tables have.
    """

    plugin: str
    tables: dict[str, int]
    revisions: tuple[str, ...]


async def owned(engine: AsyncEngine) -> dict[str, Owned]:
    """Return what plugins have in the database, by their names."""
    async with _connected(engine) as connection:
        return await connection.run_sync(_owned)


def _owned(connection: Connection) -> dict[str, Owned]:
    there = set(inspect(connection).get_table_names())
    if HISTORY.name not in there:
        return {}
    found: dict[str, dict[str, int]] = {
        row.plugin: {} for row in connection.execute(select(HISTORY.c.plugin).distinct())
    }
    for row in connection.execute(select(TABLES.c.plugin, TABLES.c.name).order_by(TABLES.c.name)):
        if row.name in there:
            rows = connection.execute(select(func.count()).select_from(_named(row.name)))
            found.setdefault(row.plugin, {})[row.name] = int(rows.scalar_one())
    versions: dict[str, tuple[str, ...]] = {}
    for plugin in found:
        table = version_table(plugin)
        if table in there:
            marks = connection.execute(select(text("version_num")).select_from(_named(table)))
            versions[plugin] = tuple(sorted(marks.scalars()))
    return {
        plugin: Owned(plugin, tables, versions.get(plugin, ()))
        for plugin, tables in sorted(found.items())
    }


def _named(table: str) -> Table:
    return Table(table, MetaData())


async def export(engine: AsyncEngine, plugin: str, path: Path) -> Owned:
    """Write a plugin's tables to a file, as they are at one moment: JSON, one line a row.

    Args:
        engine: The engine.
        plugin: The plugin's name.
        path: The file; it must not exist. It is readable by its owner alone.

    Returns:
        What was written.

    Raises:
        NotFoundError: The plugin has no tables.
        DatabaseError: The tables cannot be read.
        OSError: The file exists or cannot be written.
    """
    options = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    async with _connected(engine, **options) as connection:
        all_ = await connection.run_sync(_owned)
        have = _of(all_, plugin)
        tables = await connection.run_sync(_reflected, have)
        await anyio.to_thread.run_sync(private_folder, path.parent.absolute())
        descriptor = await anyio.to_thread.run_sync(create_private, path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                head = {"format": _FORMAT, "plugin": plugin, "revisions": have.revisions}
                _write(file, [head])
                counts = {}
                for table in tables:
                    _write(file, [{"table": table.name, "columns": [c.name for c in table.c]}])
                    counts[table.name] = 0
                    result = await connection.stream(select(table))
                    async for rows in result.partitions(_CHUNK):
                        counts[table.name] += len(rows)
                        lines = [list(row) for row in rows]
                        await anyio.to_thread.run_sync(_write, file, lines)
                await anyio.to_thread.run_sync(_to_disk, file)
        except BaseException:
            await anyio.to_thread.run_sync(path.unlink)
            raise
    return Owned(plugin, counts, have.revisions)


def _write(file: Any, lines: list[Any]) -> None:
    file.write(b"".join(msgspec.json.encode(line, enc_hook=str) + b"\n" for line in lines))


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


async def purge(engine: AsyncEngine, plugin: str) -> Owned:
    """Drop a plugin's tables, all or none, and forget which migrations it had.

    Returns:
        What there was.

    Raises:
        NotFoundError: The plugin has no tables.
        DatabaseError: The database refused it, because others' tables refer to them for instance.
    """
    async with _connected(engine, **{WRITES: True}) as connection:
        have = _of(await connection.run_sync(_owned), plugin)
        await connection.run_sync(_drop, have)
        await connection.commit()
    return have


def _reflected(connection: Connection, have: Owned) -> list[Table]:
    """Return a plugin's tables, each after those that it refers to."""
    metadata = MetaData()
    metadata.reflect(connection, only=list(have.tables))  # with the tables that they refer to
    return [table for table in metadata.sorted_tables if table.name in have.tables]


def _drop(connection: Connection, have: Owned) -> None:
    tables = _reflected(connection, have)
    types = {
        column.type.name: column.type
        for table in tables
        for column in table.columns
        if isinstance(column.type, ENUM)
    }
    for table in reversed(tables):
        table.drop(connection)
    for kind in types.values():  # of PostgreSQL: they outlive the tables
        try:
            with connection.begin_nested():
                kind.drop(connection, checkfirst=True)
        except SQLAlchemyError:
            continue  # a table of another plugin uses it
    _named(version_table(have.plugin)).drop(connection, checkfirst=True)
    connection.execute(TABLES.delete().where(TABLES.c.plugin == have.plugin))
    connection.execute(HISTORY.delete().where(HISTORY.c.plugin == have.plugin))


def _of(all_: dict[str, Owned], plugin: str) -> Owned:
    if plugin in all_:
        return all_[plugin]
    raise NotFoundError(
        f"the plugin {plugin!r} has nothing in the database",
        remedy=f"There are: {', '.join(all_) or 'none'}.",
    )


@asynccontextmanager
async def _connected(engine: AsyncEngine, **options: Any) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.execution_options(**{QUIET: True, **options}).connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise DatabaseError(
            f"the database refused it: {reason_of(error)}", remedy="Nothing was changed."
        ) from error

"""Migrations: each plugin's own, in Alembic's files, with a table of versions of its own.

A folder `migrations` beside the plugin's code has one file per revision, as Alembic writes them.
They run on one connection, in the transaction of the load, under a lock that all processes share.
Which tables a plugin has follows from what there is before and after.

Going back: code that is older than the tables finds a revision that it does not know. Veko has
written down which code made it. Old code may run on newer tables (that is what happens anyway while
a reload replaces it), unless the migration says `breaks = True`.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    MetaData,
    String,
    Table,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.util.concurrency import await_only

from .errors import MigrationError, reason_of

__all__ = ["HISTORY", "TABLES", "Migrations", "Plan", "version_table"]

_METADATA: Final = MetaData()
HISTORY: Final = Table(
    "veko_migrations",
    _METADATA,
    Column("plugin", String(200), primary_key=True),
    Column("revision", String(100), primary_key=True),
    Column("breaks", Boolean, nullable=False),
    Column("applied", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
"""Which revisions of each plugin were applied."""
TABLES: Final = Table(
    "veko_tables",
    _METADATA,
    Column("name", String(200), primary_key=True),
    Column("plugin", String(200), nullable=False),
)
"""Which tables belong to which plugin."""
_LOCK: Final = 8_319_904_721_357_002
"""The key of PostgreSQL's advisory lock."""
_LONGEST: Final = 63
"""The longest name of a table, in PostgreSQL."""
# Alembic's `op`, which migrations import, is one object for the whole process.
_ALEMBIC: Final = threading.Lock()


class Plan(msgspec.Struct, frozen=True):
    """What is to be done for a plugin.

    Attributes:
        now: The revisions that its tables have; empty if there are none.
        heads: The revisions that its code knows as the last ones.
        pending: Whether migrations have to run.
        ahead: Whether the tables are newer than its code.
    """

    now: tuple[str, ...]
    heads: tuple[str, ...]
    pending: bool
    ahead: bool = False


class Migrations:
    """The migrations of one plugin.

    Args:
        plugin: The plugin's name.
        folder: The folder with its migrations.

    Raises:
        MigrationError: There is no such folder, or a file in it is not a migration.
    """

    def __init__(self, plugin: str, folder: Path) -> None:
        self._plugin = plugin
        self._folder = folder
        self._table = version_table(plugin)
        if not folder.is_dir():
            raise MigrationError(
                f"there is no folder {folder}",
                plugin=plugin,
                remedy="Create it, with a file for each migration, or name another one: "
                'migrate("path").',
            )
        with self._explained(f"the migrations in {folder} cannot be read"), _uncompiled():
            self._script = ScriptDirectory(str(folder), version_locations=[str(folder)])
            self._scripts = {one.revision: one for one in self._script.walk_revisions()}
            self._heads = tuple(sorted(self._script.get_heads()))
            self._check_files()

    def _check_files(self) -> None:
        # Of two files of one revision Alembic would take one, with a mere warning.
        read = {Path(script.path).name for script in self._scripts.values()}
        for file in sorted(self._folder.glob("[!_.]*.py")):
            if file.name not in read:
                raise MigrationError(
                    f"{file.name} has a revision that another file has, too",
                    plugin=self._plugin,
                    path=self._folder,
                    remedy="Give it a revision of its own.",
                )

    def plan(self, connection: Connection) -> Plan:
        """Compare the tables with the code.

        Raises:
            MigrationError: The tables are newer than the code, and that is not allowed.
        """
        context = MigrationContext.configure(connection, opts={"version_table": self._table})
        now = tuple(sorted(context.get_current_heads()))
        unknown = [revision for revision in now if revision not in self._scripts]
        if unknown:
            self._allow_older_code(connection, unknown)
            return Plan(now, self._heads, pending=False, ahead=True)
        return Plan(now, self._heads, pending=now != self._heads)

    def _allow_older_code(self, connection: Connection, unknown: list[str]) -> None:
        rows: list[Any] = []
        if inspect(connection).has_table(HISTORY.name):
            found = connection.execute(
                select(HISTORY.c.revision, HISTORY.c.breaks).where(HISTORY.c.plugin == self._plugin)
            )
            rows = list(found)
        applied = {row.revision for row in rows}
        breaking = [
            row.revision for row in rows if row.breaks and row.revision not in self._scripts
        ]
        tables = f"its tables have the revision {', '.join(unknown)}, which its code does not know"
        if breaking or not applied.issuperset(self._heads):
            why = f"{breaking[0]} breaks older code" if breaking else "its code is of another line"
            raise MigrationError(
                f"{tables}: {why}",
                plugin=self._plugin,
                path=self._folder,
                remedy="Load the version of the plugin that has this migration, or restore the "
                "tables from a backup.",
            )

    def upgrade(self, connection: Connection, wait: float) -> Plan:
        """Run what is pending, in the transaction that is open.

        Args:
            connection: The connection.
            wait: How long to wait for another process that migrates, in seconds.

        Returns:
            What there was to do.

        Raises:
            MigrationError: A migration failed; the transaction has to be rolled back.
        """
        self._lock(connection, wait)
        plan = self.plan(connection)  # another process may have done it
        if not plan.pending:
            return plan
        _METADATA.create_all(connection)
        before = set(inspect(connection).get_table_names())
        context = MigrationContext.configure(
            connection, opts={"version_table": self._table, "fn": self._steps}
        )
        with (
            self._explained("a migration failed"),
            _alembic_alone(wait, self._plugin),
            Operations.context(context),
        ):
            context.run_migrations()
        self._write_down(connection, plan, before)
        return plan

    def _steps(self, revision: Any, _: object) -> Any:
        return self._script._upgrade_revs("heads", revision)

    def _write_down(self, connection: Connection, plan: Plan, before: set[str]) -> None:
        done = self._script.iterate_revisions(plan.heads, plan.now or "base")
        for script in done:
            if script.revision in plan.now:
                continue
            breaks = bool(getattr(script.module, "breaks", False))
            row = {"plugin": self._plugin, "revision": script.revision, "breaks": breaks}
            connection.execute(HISTORY.delete().where(
                HISTORY.c.plugin == self._plugin, HISTORY.c.revision == script.revision
            ))  # fmt: skip
            connection.execute(HISTORY.insert().values(**row))
        after = set(inspect(connection).get_table_names())
        gone, new = before - after, after - before
        if gone:
            connection.execute(TABLES.delete().where(TABLES.c.name.in_(gone)))
        for name in sorted(new - {self._table}):
            connection.execute(TABLES.insert().values(name=name, plugin=self._plugin))

    def _lock(self, connection: Connection, wait: float) -> None:
        """Wait for other processes. In SQLite the transaction is the only writer already."""
        if connection.dialect.name != "postgresql":
            return
        milliseconds = max(1, round(wait * 1000))
        connection.execute(text(f"SET LOCAL lock_timeout = {milliseconds}"))
        connection.execute(text(f"SET LOCAL statement_timeout = {milliseconds + 1000}"))
        try:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        except SQLAlchemyError as error:
            raise MigrationError(
                f"another process has been migrating for more than {wait:g} s",
                plugin=self._plugin,
                remedy="Wait for it, or end it; or raise migration_timeout in [plugins.database].",
            ) from error
        connection.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
        connection.execute(text("SET LOCAL statement_timeout TO DEFAULT"))

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except MigrationError:
            raise
        except Exception as error:
            why = str(error) if isinstance(error, CommandError) else reason_of(error)
            raise MigrationError(
                f"{what}: {why}",
                plugin=self._plugin,
                path=self._folder,
                remedy="Nothing was changed; fix the migration and load the plugin again.",
            ) from error


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Let no compiled files be written: they are found by time and size, which edits may share."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextmanager
def _alembic_alone(wait: float, plugin: str) -> Iterator[None]:
    """Hold the lock for what Alembic keeps once for the whole process."""

    end = time.monotonic() + wait
    while not _ALEMBIC.acquire(blocking=False):
        if time.monotonic() > end:
            raise MigrationError("another application of this process migrates", plugin=plugin)
        await_only(asyncio.sleep(0.01))
    try:
        yield
    finally:
        _ALEMBIC.release()


def version_table(plugin: str) -> str:
    """Return the name of a plugin's table of versions."""
    name = f"veko_version_{plugin}"
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9]}_{hashlib.sha256(plugin.encode()).hexdigest()[:8]}"

"""The core plugin `database`: SQLAlchemy's engine as a service, and `context.database`."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from veko import Context, Plugin, PluginRecord
from veko.extend import Kind

from .._lib.database_events import QUERY, Announcer
from .config import DatabaseConfig
from .database import Database
from .engines import opened
from .errors import DatabaseError, reason_of
from .loads import KIND, Loads
from .ownership import Owned
from .queries import QUIET, Queries
from .urls import location_of, read_url

__all__ = ["DatabasePlugin"]


class DatabasePlugin(Plugin):
    """A database of SQLAlchemy's: the service `database`, and `context.database` for each plugin.

    Args:
        url: The option `database`.
        directory: The application's directory, in which a relative path begins.

    Raises:
        OptionError: The URL is wrong, or its driver is not installed.
    """

    name = "database"
    version = "2.0.0"
    description = "Sessions of SQLAlchemy, migrations for each plugin, hooks around statements"
    type = "database"
    reload = "restart"  # its sessions do not outlive it
    core = True
    config_schema = DatabaseConfig

    _context: Context
    _database: Database

    def __init__(self, url: str, directory: Path = Path()) -> None:
        self._url = read_url(url, directory)
        self._announcer: Announcer | None = None

    async def load(self, context: Context) -> None:
        """Connect, and provide the service.

        Raises:
            DatabaseError: The database cannot be reached.
        """
        config: DatabaseConfig = context.config
        self._context = context
        database, loads = await context.enter(self._opened(context, config))
        self._database = database
        self._announcer = Announcer(context, database)
        context.add_kind(Kind(KIND, accept=loads.accept))
        context.intercept_step(loads.within)
        context.attach("database", lambda holder: database.of(holder.name))
        context.provide("database", database)
        context.hook("app:init", self._on_init)
        context.hook("plugin:unloaded", self._on_unloaded)
        context.hook("plugin:loaded", loads.remembered.loaded)

    async def deactivate(self) -> None:
        """Announce that it is switched off, unless `app:stop` has."""
        if self._announcer is not None:
            await self._announcer.disconnect()

    @asynccontextmanager
    async def _opened(
        self, context: Context, config: DatabaseConfig
    ) -> AsyncIterator[tuple[Database, Loads]]:
        bus, location = context.kernel.bus, location_of(self._url)
        async with opened(self._url, config) as engine:
            try:
                async with engine.execution_options(**{QUIET: True}).connect() as connection:
                    await connection.execute(text("SELECT 1"))
            except SQLAlchemyError as error:
                raise DatabaseError(
                    f"the database cannot be used: {reason_of(error)}",
                    plugin=self.name,
                    remedy="Check the option `database`, and that the server runs.",
                ) from error
            heard = functools.partial(bus.heard, QUERY.name)
            system = engine.dialect.name
            Queries(engine.sync_engine, bus.emitter(QUERY.name), heard, system)
            loads = Loads(engine, config.migration_timeout)
            yield Database(engine, loads, location, self._is_loaded), loads

    def _is_loaded(self, name: str) -> bool:
        record = self._context.kernel.get(name)
        return record is not None and record.loaded

    async def _on_init(self) -> None:
        """Say which tables belong to no plugin that is there."""
        kernel = self._context.kernel
        for name, have in (await self._database.owned()).items():
            if kernel.get(name) is None:
                self._say_what_stays(name, have)

    async def _on_unloaded(self, name: str, record: PluginRecord) -> None:
        """Say what stays of a plugin whose files are gone."""
        source = record.source
        if source is not None and not await anyio.Path(source).exists():
            have = (await self._database.owned()).get(name)
            if have is not None:
                self._say_what_stays(name, have)

    def _say_what_stays(self, name: str, have: Owned) -> None:
        tables = ", ".join(f"{table} ({rows} rows)" for table, rows in have.tables.items())
        self._context.log(
            "info",
            f"the plugin {name} is gone and its tables stay: {tables or 'none'}. To save or drop "
            f"them: veko database export {name}, veko database purge {name}",
        )

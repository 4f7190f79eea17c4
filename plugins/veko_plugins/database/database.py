"""The database: sessions of SQLAlchemy, in the name of a plugin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from .._lib.database_events import DataSource
from .engines import WRITES
from .errors import DatabaseError, MigrationError
from .loads import Loads, loading
from .migrations import Migrations
from .ownership import Owned, export, owned, purge
from .pool import named
from .queries import QUIET

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["STATE", "Database"]

STATE: Final = "session"
"""The key of `request.state` under which `per_request` puts the session."""
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSED: Final = 400


class _Request(Protocol):
    @property
    def method(self) -> str: ...
    @property
    def state(self) -> dict[str, Any]: ...


class _Response(Protocol):
    status: int


class Database(DataSource):
    """A database, open while the core plugin is loaded; `context.database` is a plugin's own.

    Attributes:
        engine: SQLAlchemy's engine, for what sessions do not do.
        location: Where it is, without user and password: `postgresql at host:5432/name`.
        owner: The plugin in whose name it is used; `None` for the application.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        loads: Loads,
        location: str,
        is_loaded: Callable[[str], bool],
        owner: str | None = None,
    ) -> None:
        self._base = engine
        self._loads = loads
        self._is_loaded = is_loaded
        self.location = location
        self.owner = owner
        self.engine = engine if owner is None else named(engine, owner)
        self._writer = named(engine, owner, **{WRITES: True})

    def __repr__(self) -> str:
        return f"<Database {self.location}>"

    def of(self, plugin: str) -> Database:
        """Return the same database, used in the name of a plugin."""
        return Database(self._base, self._loads, self.location, self._is_loaded, plugin)

    @property
    def dialect(self) -> str:
        """The kind of the database: `"sqlite"`, `"postgresql"`."""
        return self.engine.dialect.name

    def session(self) -> AsyncSession:
        """Return a session: `async with db.session() as session:`. Commit what it is to keep.

        It takes a connection at its first statement, and gives it back when it is committed, rolled
        back or closed. Use it in one task at a time. In a `load()` that has migrated it is part of
        the transaction of the load.
        """
        return self._session(self.engine)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """Give a session that is committed at the end: `async with db.begin() as session:`.

        An error, or a cancellation, rolls it back. It is for transactions that write: SQLite has
        one writer at a time, whose turn is waited for here and not in the middle.
        """
        async with self._session(self._writer) as session, session.begin():
            yield session

    def _session(self, engine: AsyncEngine) -> AsyncSession:
        load = self._loads.current()
        bind: AsyncEngine | AsyncConnection = engine
        if load is not None and load.connection is not None:
            bind = load.connection
        return AsyncSession(bind, expire_on_commit=False, join_transaction_mode="create_savepoint")

    async def per_request(
        self, request: _Request, call_next: Callable[[Any], Awaitable[_Response]]
    ) -> _Response:
        """Give each request a session, `request.state["session"]`; a middleware for routes.

        It is committed if the status of the response is below 400, otherwise rolled back, before
        the response is sent; what streams afterwards has no session. A request that needs no
        connection takes none.
        """
        engine = self.engine if request.method in _READING else self._writer
        async with self._session(engine) as session:
            request.state[STATE] = session
            try:
                response = await call_next(request)
            finally:
                request.state.pop(STATE, None)
            if response.status < _REFUSED:
                await session.commit()
        return response

    async def migrate(self, folder: str | Path = "migrations") -> bool:
        """Bring the plugin's tables up to date, in its `load()`.

        From then on, `load()` works in one transaction, which is committed when the plugin goes
        live: if it does not, the migrations are undone.

        Args:
            folder: The folder with the migrations; a relative one is beside the plugin's code.

        Returns:
            Whether there was something to do.

        Raises:
            MigrationError: This is not called in `load()`; the migrations cannot be read, or one
                failed; others migrate for too long; or the tables are newer than the code, and a
                migration says that it breaks older code.
        """
        generation = loading()
        if generation is None:
            raise MigrationError(
                "migrate() runs in load() only",
                plugin=self.owner,
                remedy="Call it in load(): what it does is undone if the plugin does not load.",
            )
        migrations = self._loads.remembered.of(generation)
        if migrations is None:
            beside = _beside(generation, Path(folder))
            # In a thread: Python compiles the files, a millisecond each.
            migrations = await asyncio.to_thread(Migrations, generation.name, beside)
        self._loads.remembered.tried(generation, migrations)

        def look(connection: Connection) -> Any:
            return migrations.plan(connection)

        load = self._loads.current()
        if load is None:
            async with self._base.execution_options(**{QUIET: True}).connect() as connection:
                plan = await connection.run_sync(look)
            if not plan.pending:
                self._warn(generation, plan)
                return False
            load = await self._loads.begin(generation)
        assert load.connection is not None
        plan = await load.connection.run_sync(migrations.upgrade, self._loads.timeout)
        self._warn(generation, plan)
        if plan.pending:
            was = ", ".join(plan.now) or "nothing"
            generation.context.log(
                "info", f"migrated its tables from {was} to {', '.join(plan.heads)}"
            )
        return bool(plan.pending)

    async def owned(self) -> dict[str, Owned]:
        """Return what plugins have in the database, by their names; loaded or not."""
        return await owned(self._base)

    async def export(self, plugin: str, path: Path) -> Owned:
        """Write a plugin's tables to a new file, as JSON lines; see `ownership.export`.

        Raises:
            NotFoundError: The plugin has no tables.
            OSError: The file exists or cannot be written.
        """
        return await export(self._base, plugin, path)

    async def purge(self, plugin: str) -> Owned:
        """Drop the tables of a plugin that is not loaded, all or none.

        Returns:
            What there was.

        Raises:
            NotFoundError: The plugin has no tables.
            DatabaseError: The plugin is loaded here, or the database refused it.
        """
        if self._is_loaded(plugin):
            raise DatabaseError(
                "it is loaded, and uses the tables that are to be purged",
                plugin=plugin,
                remedy="Unload it first.",
            )
        return await purge(self._base, plugin)

    @staticmethod
    def _warn(generation: Any, plan: Any) -> None:
        if plan.ahead:
            generation.context.log(
                "warning",
                f"its tables are at {', '.join(plan.now)}, newer than its code, which ends at "
                f"{', '.join(plan.heads)}: it runs on the newer tables",
            )


def _beside(generation: Any, folder: Path) -> Path:
    """Return a folder that is relative to the file or folder that a plugin was loaded from."""
    if folder.is_absolute():
        return folder
    source = generation.source
    if source is None:
        raise MigrationError(
            "the plugin does not come from a file, so its migrations are not beside it",
            plugin=generation.name,
            remedy="Name their folder with an absolute path: migrate(path).",
        )
    parent: Path = source if source.is_dir() else source.parent
    return parent / folder

"""Engines: SQLAlchemy's, with time limits, and for SQLite with the settings that servers need."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util.concurrency import await_only

from .._lib.masking import masked_text
from .config import DatabaseConfig
from .pool import HolderPool, follow
from .urls import MEMORY, location_of

__all__ = ["WRITES", "opened"]

WRITES: Final = "veko_writes"
"""The execution option of transactions that write: in SQLite they take the write lock at once."""


@contextlib.asynccontextmanager
async def opened(url: URL, config: DatabaseConfig) -> AsyncIterator[AsyncEngine]:
    """Make an engine, and close its connections at the end; it has not connected yet."""
    with contextlib.ExitStack() as stack:
        temporary = url.database == MEMORY and url.get_backend_name() == "sqlite"
        if temporary:
            # Connections to SQLite's own memory databases either share one transaction, or lock
            # whole tables and ignore the busy time-out: a file behaves as one that stays does.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="veko-database-"))
            url = url.set(database=str(Path(folder) / "memory.db"))
        engine = _made(url, config, temporary=temporary)
        try:
            yield engine
        finally:
            await engine.dispose()


def _made(url: URL, config: DatabaseConfig, *, temporary: bool) -> AsyncEngine:
    backend = url.get_backend_name()
    arguments: dict[str, Any] = {}
    if backend == "sqlite":
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        # The driver would begin transactions late and commit before some statements: `begin` does
        # (test_half_of_a_migration_leaves_nothing).
        arguments = {"isolation_level": None, "timeout": config.lock_timeout}
    elif url.get_driver_name() == "asyncpg":
        arguments = {
            "timeout": config.connect_timeout,
            # Beyond the server's own limit: for servers that do not answer at all.
            "command_timeout": config.query_timeout + 5,
            "server_settings": {
                "application_name": "veko",
                "statement_timeout": _milliseconds(config.query_timeout),
                "lock_timeout": _milliseconds(config.lock_timeout),
            },
        }
    engine = create_async_engine(
        url,
        poolclass=HolderPool,
        pool_size=config.pool_size,
        max_overflow=0,
        pool_timeout=config.pool_timeout,
        pool_recycle=config.recycle,
        connect_args=arguments,
        hide_parameters=True,  # values stay out of errors and logs
    )
    sync = engine.sync_engine
    _explain_failures(sync, location_of(url))
    if backend == "sqlite":
        _set_up_sqlite(sync, config, temporary=temporary)
    follow(sync, None if backend == "sqlite" else config.idle)
    return engine


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _set_up_sqlite(engine: Any, config: DatabaseConfig, *, temporary: bool) -> None:
    pragmas = [
        f"PRAGMA busy_timeout = {_milliseconds(config.lock_timeout)}",
        "PRAGMA journal_mode = WAL",
        "PRAGMA foreign_keys = ON",
        f"PRAGMA synchronous = {'OFF' if temporary else 'NORMAL'}",
    ]

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine, "begin")
    def note(connection: Connection) -> None:
        connection.connection.info[WRITES] = connection.get_execution_options().get(WRITES)

    def begin(connection: Any) -> None:
        # A transaction that reads first and writes later fails at once, whatever the time-out, if
        # another one wrote in between: those that are to write take the lock now. By the driver's
        # connection: a cursor of SQLAlchemy's would cost three visits to the driver's thread.
        writes = connection.info.pop(WRITES, None)
        await_only(connection.driver_connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN"))

    def terminate(connection: Any) -> None:
        # Of a connection whose author was cancelled: a statement may still run in the driver's
        # thread. It is ended, and the thread closes the connection by itself: nothing is awaited
        # here, since a second cancellation would leave that behind for good
        # (test_a_migration_that_exceeds_the_time_limit_of_the_load_is_undone).
        driver = connection.driver_connection
        with contextlib.suppress(ValueError, StopIteration):  # closed already; done
            driver.interrupt().send(None)
        driver.stop()

    engine.dialect.do_begin = begin
    engine.dialect.do_terminate = terminate


def _explain_failures(engine: Any, location: str) -> None:
    """Let a connection that fails say which database it was, as an error of the driver's."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _: object, args: list[Any], options: dict[str, Any]) -> Any:
        try:
            return dialect.connect(*args, **options)
        except Exception as error:
            why = masked_text(str(error)) or type(error).__name__
            raise dialect.loaded_dbapi.OperationalError(
                f"{location} cannot be reached: {why}"
            ) from error

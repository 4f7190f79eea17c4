"""What does a query through the service `database` cost, beside SQLAlchemy alone?

    python benchmarks/database.py [--seconds N] [--quick] [--postgres URL]

On SQLite and PostgreSQL, which is started where it is installed. Each contender opens a session,
reads one row by its key and closes the session, in a transaction as always: SQLAlchemy with the
same driver and the same kind of pool; the service; the service with a hook on `database:query` that
looks at the query; and with one that awaits it (`result = await query; return result`). They take
turns in one process; see `_harness.py`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Any

from _harness import Timings, take_turns
from _report import Report, progress, script
from _servers import storages
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from veko_plugins import PluginManager

READ = text("SELECT body FROM bench WHERE id = :id")
TURN = 20
Run = Callable[[int], Awaitable[object]]


def bare_engine(url: str) -> AsyncEngine:
    """Make the engine that an application without Veko would make."""
    if not url.startswith("sqlite"):
        plain = url.replace("postgresql://", "postgresql+asyncpg://")
        return create_async_engine(plain, pool_size=10)
    engine = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"), pool_size=10)

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.close()

    return engine


def reads(session: Callable[[], AsyncSession]) -> Run:
    """Return a function that reads so many rows, with a session for each."""

    async def run(count: int) -> None:
        for number in range(count):
            async with session() as one:
                (await one.execute(READ, {"id": number % 100})).scalar_one()

    return run


def look(query: Any) -> None:
    """Look at a query, as a hook."""
    len(query.statement)


async def around(query: Any) -> Any:
    """Stand around a query, as a hook."""
    result = await query
    return result  # noqa: RET504


async def contend(url: str, seconds: float) -> Timings:
    """Let the contenders take turns."""
    async with AsyncExitStack() as stack:
        engine = bare_engine(url)
        stack.push_async_callback(engine.dispose)
        async with engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS bench"))
            await connection.execute(text("CREATE TABLE bench (id INTEGER PRIMARY KEY, body TEXT)"))
            rows = [{"id": number, "body": "x" * 100} for number in range(100)]
            await connection.execute(text("INSERT INTO bench VALUES (:id, :body)"), rows)
        contenders = {"SQLAlchemy": reads(lambda: AsyncSession(engine))}
        for name, hook in (("service", None), ("hook looks", look), ("hook awaits", around)):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            manager = await stack.enter_async_context(
                PluginManager(
                    root=folder,
                    plugins_dir=[],
                    database=url,
                    storage="none",
                    adapter=None,
                    watchdog=0,
                )
            )
            if hook is not None:
                manager.bus.on("database:query", hook)
            contenders[name] = reads(manager.use("database").session)
        for run in contenders.values():
            await run(TURN * 5)
        turns = {name: (run, TURN) for name, run in contenders.items()}
        return await take_turns(turns, seconds=seconds)


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure on SQLite, and on PostgreSQL if there is one."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        urls = {"SQLite": f"sqlite:///{folder}/bench.db"}
        if given.postgres:
            urls["PostgreSQL"] = given.postgres
        elif started := storages(stack, report, ("postgres",)):
            urls["PostgreSQL"] = started["postgres"]
        for kind, url in urls.items():
            progress(kind)
            timings = await contend(url, given.seconds / len(urls))
            rows = [
                [
                    name,
                    f"{timings.median(name) / 1000:.0f}",
                    f"{timings.ratio(name, 'SQLAlchemy'):.2f}×",
                    f"{timings.ratio_of_fastest(name, 'SQLAlchemy'):.2f}×",
                ]
                for name in timings.names
            ]
            report.table([kind, "µs a query", "ratio", "ratio of the fastest"], rows)


if __name__ == "__main__":
    script(
        measure,
        seconds=8,
        options=lambda parser: parser.add_argument(
            "--postgres", metavar="URL", help="a PostgreSQL that runs"
        ),
    )

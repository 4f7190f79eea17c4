"""What goes wrong with servers and sessions: bounded waits, clear errors, and it recovers."""

import asyncio
import importlib.util
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from veko import OptionError
from veko_plugins.database import Database
from veko_plugins.database.urls import read_url

from ...storages.conftest import Server, running
from .conftest import MIGRATES, NOTES, App, new_database

INSERT = text("INSERT INTO notes (body) VALUES (:body)")
LIMITS = {
    "pool_size": 4, "pool_timeout": 1.0, "connect_timeout": 1.0, "query_timeout": 2.0,
    "lock_timeout": 1.0, "idle": 0.0,
}  # fmt: skip


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[tuple[App, Server]]:
    """An application on a PostgreSQL of its own."""
    with running("postgres") as server:
        async with new_database(server) as url:
            app = App(tmp_path, url)
            app.plugin("notes", MIGRATES, a=NOTES)
            yield app, server


async def test_a_server_that_is_restarted_under_load_loses_nothing_acknowledged(
    own: tuple[App, Server],
) -> None:
    app, server = own
    async with app.manager(plugins={"database": LIMITS}) as manager:
        db: Database = manager.use("database")
        acknowledged: set[str] = set()
        errors: list[str] = []
        longest, stop = 0.0, False

        async def work(worker: int) -> None:
            nonlocal longest
            number = 0
            while not stop:
                number += 1
                begin = time.monotonic()
                try:
                    async with db.begin() as session:
                        await session.execute(INSERT, {"body": f"{worker}-{number}"})
                    acknowledged.add(f"{worker}-{number}")
                except SQLAlchemyError as error:
                    errors.append(str(error))
                    await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - begin)

        async def more(number: int) -> None:
            while len(acknowledged) < number:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        workers = [asyncio.create_task(work(one)) for one in range(8)]
        for _ in range(2):
            before = len(acknowledged)
            await more(before + 50)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
        before = len(acknowledged)
        await more(before + 50)  # it recovers by itself
        stop = True
        await asyncio.gather(*workers)
        async with db.session() as session:
            there = set((await session.execute(text("SELECT body FROM notes"))).scalars())
        assert acknowledged <= there
        assert any("cannot be reached" in error for error in errors)
        assert not any(server.url.split(":")[2].split("@")[0] in error for error in errors)
        assert longest < 20  # each attempt is bounded


async def test_connections_that_the_server_has_closed_meanwhile_are_replaced(
    own: tuple[App, Server],
) -> None:
    app, server = own
    async with app.manager(plugins={"database": LIMITS}) as manager:
        db: Database = manager.use("database")
        async with db.session() as one, db.session() as two:
            await one.execute(text("SELECT 1"))
            await two.execute(text("SELECT 1"))
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        async with db.session() as session:  # no error: it was tested before
            assert (await session.execute(text("SELECT 7"))).scalar_one() == 7


async def test_a_server_that_does_not_answer_is_a_bounded_wait(own: tuple[App, Server]) -> None:
    app, server = own
    limits = {**LIMITS, "query_timeout": 0.5}
    async with app.manager(plugins={"database": limits}) as manager:
        db: Database = manager.use("database")

        async def ask() -> Any:
            async with db.session() as session:
                return (await session.execute(text("SELECT 7"))).scalar_one()

        assert await ask() == 7
        await asyncio.to_thread(server.pause, True)
        begin = time.monotonic()
        try:
            with pytest.raises((SQLAlchemyError, TimeoutError)):
                await ask()
        finally:
            await asyncio.to_thread(server.pause, False)
        assert time.monotonic() - begin < 25
        assert await ask() == 7


async def test_a_statement_that_is_too_slow_is_ended(own: tuple[App, Server]) -> None:
    app, _ = own
    async with app.manager(plugins={"database": {"query_timeout": 0.2}}) as manager:
        async with manager.use("database").session() as session:
            with pytest.raises(SQLAlchemyError, match="statement timeout"):
                await session.execute(text("SELECT pg_sleep(10)"))
        async with manager.use("database").session() as session:
            assert (await session.execute(text("SELECT 7"))).scalar_one() == 7


async def test_a_session_that_a_cancelled_task_has_leaked_does_not_cost_a_connection(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    settings = {"database": {"pool_size": 1, "pool_timeout": 0.5}}
    async with app.manager(plugins=settings) as manager:
        db: Database = manager.use("database").of("leaky")
        leaked = asyncio.Event()

        async def leak() -> None:
            session = db.session()
            await session.execute(INSERT, {"body": "leaked"})
            leaked.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(leak())
        await leaked.wait()
        with pytest.raises(SQLAlchemyError, match="leaky 1 for up to"):
            async with db.session() as session:
                await session.execute(text("SELECT 1"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with db.session() as session:
            found = await session.execute(text("SELECT count(*) FROM notes"))
            assert found.scalar_one() == 0
        assert "leaky has left a session open at the end of a task" in caplog.text


def test_a_missing_driver_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> object:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(OptionError, match=r'pip install "veko\[postgres\]"'):
        read_url("postgresql://u:hidden-word@h/x", tmp_path)
    with pytest.raises(OptionError, match=r'pip install "veko\[database\]"'):
        read_url("sqlite:///x.db", tmp_path)


async def test_without_sqlalchemy_the_option_says_what_to_install(
    sqlite: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [one for one in sys.modules if one.startswith("veko_plugins.database")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("veko_plugins.database", raising=False)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    monkeypatch.setitem(sys.modules, "sqlalchemy.exc", None)
    with pytest.raises(OptionError, match=r'pip install "veko\[database\]"'):
        await sqlite.manager().start()


def test_nothing_of_it_is_imported_while_it_is_off() -> None:
    code = """
import asyncio, sys, tempfile
from veko_plugins import PluginManager
async def main():
    with tempfile.TemporaryDirectory() as folder:
        async with PluginManager(root=folder, plugins_dir=[], storage="none", adapter="asgi"):
            pass
asyncio.run(main())
print([name for name in ("sqlalchemy", "alembic", "aiosqlite") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


async def test_a_client_that_leaves_in_a_request_leaves_no_session(app: App) -> None:
    app.plugin(
        "waiting",
        """
        import asyncio
        from sqlalchemy import text
        inside = asyncio.Event()

        async def load(context):
            await context.database.migrate()

            async def wait(request):
                session = request.state["session"]
                await session.execute(text("INSERT INTO notes (body) VALUES ('x')"))
                inside.set()
                await asyncio.Event().wait()

            context.provide("inside", inside)
            context.add_route("POST", "/wait", context.database.per_request, wait)
        """,
        a=NOTES,
    )
    async with app.manager(plugins={"database": {"pool_size": 1}}) as manager:
        assert not manager.report.failed
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            asking = asyncio.create_task(client.post("/wait"))
            await manager.use("inside").wait()
            asking.cancel()
            await asyncio.wait([asking])
        async with manager.use("database").session() as session:
            found = await session.execute(text("SELECT count(*) FROM notes"))
            assert found.scalar_one() == 0

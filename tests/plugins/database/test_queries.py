"""`database:query` around statements, and the spans of these."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from veko import Stop
from veko_plugins.database import Database, Query

from .conftest import MIGRATES, NOTES, App

INSERT = text("INSERT INTO notes (body) VALUES (:body)")
COUNT = text("SELECT count(*) FROM notes")


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]


async def count(db: Database) -> int:
    async with db.session() as session:
        return int((await session.execute(COUNT)).scalar_one())


async def add(db: Database, *bodies: str) -> None:
    async with db.begin() as session:
        for body in bodies:
            await session.execute(INSERT, {"body": body})


async def test_H_database_query_runs_around_every_statement(app: App) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    app.plugin(
        "watching",
        """
        calls, seen = [], []

        def load(context):
            async def original(query):
                calls.append("before")
                result = await query
                calls.append("after")
                seen.append((query.operation, query.plugin, int(result), query.duration > 0))
                return result

            context.hook("database:query", original)
            context.provide("seen", seen)
        """,
    )
    async with app.manager() as manager:
        seen = manager.use("seen")
        seen.clear()  # of the migrations
        db = manager.use("database").of("tests")
        await add(db, "a")
        assert seen == [("insert", "tests", 1, True)]
        seen.clear()
        async with db.begin() as session:  # what flushing and loading send, too
            session.add_all([Note(body="b"), Note(body="c")])
        async with db.session() as session:
            note = await session.get_one(Note, 1)
            await session.refresh(note)
        assert {operation for operation, *_ in seen[:-2]} == {"insert"}
        assert [operation for operation, *_ in seen[-2:]] == ["select", "select"]
        async with db.engine.begin() as connection:
            await connection.execute(INSERT, [{"body": "d"}, {"body": "e"}])
        assert await count(db) == 5
        assert manager.error_count("watching") == 0


async def test_H_database_connect_and_database_disconnect_of_the_database(app: App) -> None:
    app.plugin(
        "heard",
        """
        def load(app, context):
            for event in ("database:connect", "database:disconnect", "app:start"):
                context.hook(event, lambda one, event=event: app.append((event, repr(one))))
            context.hook("database:connect", ask)
            async def ask_again(db):
                app.append(await ask(db))
            context.hook("database:disconnect", ask_again, priority=1)

        async def ask(db):
            from sqlalchemy import text
            async with db.session() as session:
                return (await session.execute(text("SELECT 7"))).scalar_one()

        def unload(app):
            app.append("unload")
        """,
    )
    heard: list[object] = []
    from veko_plugins import PluginManager

    options = {"database": app.url, "storage": "none", "max_retries": 0, "adapter": "asgi"}
    manager = PluginManager(heard, root=app.root, **options)  # type: ignore[arg-type]
    async with manager:
        shown = repr(manager.use("database"))
        assert heard == [("database:connect", shown), ("app:start", repr(heard[:1]))]
        heard.clear()
        await manager.toggle_plugin("database", False)
        assert heard[0] == ("database:disconnect", shown)
        await manager.toggle_plugin("database", True)
        assert heard[2:] == [("database:connect", shown)]
        heard.clear()
    assert heard == [("database:disconnect", shown), 7, "unload"]


async def test_hooks_may_be_none_fail_hang_or_not_await(app: App) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    async with app.manager() as manager:
        db, bus = manager.use("database"), manager.bus

        def fails(query: Query) -> None:
            raise RuntimeError("no")

        async def hangs(query: Query) -> None:
            await asyncio.Event().wait()

        def looks(query: Query) -> None:
            assert not query.started

        for hook in (looks, fails, hangs):
            bus.on("database:query", hook, timeout=0.05 if hook is hangs else None)
        await add(db, "a")
        assert await count(db) == 1


async def test_a_hook_that_exceeds_its_limit_does_not_stop_the_query(app: App) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    async with app.manager() as manager:
        db = manager.use("database")
        slow = (
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300000) "
            "SELECT max(x) FROM n"
        )

        async def around(query: Query) -> object:
            return await query

        manager.bus.on("database:query", around, timeout=0.001)
        async with db.session() as session:
            assert (await session.execute(text(slow))).scalar_one() == 300_000


async def test_the_error_of_a_query_is_that_of_its_author_and_no_failure_of_a_hook(
    app: App,
) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    app.plugin(
        "watching",
        """
        caught = []
        def load(context):
            async def original(query):
                result = await query
                return result
            async def catches(query):
                try:
                    return await query
                except Exception as error:
                    caught.append((type(error).__name__, type(error.__cause__).__name__))
                    raise
            context.hook("database:query", catches)
            context.hook("database:query", original)
            context.provide("caught", caught)
        """,
    )
    async with app.manager() as manager:
        db = manager.use("database")
        await add(db, "a")
        with pytest.raises(IntegrityError):
            await add(db, "a")
        name = "IntegrityError" if db.dialect == "sqlite" else "UniqueViolationError"
        assert manager.use("caught") == [("QueryError", name)]
        assert manager.error_count("watching") == 0
        await add(db, "b")
        assert await count(db) == 2


async def test_it_runs_once_and_a_hook_may_put_another_statement_in_its_stead(app: App) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    async with app.manager() as manager:
        db = manager.use("database")

        async def twice(query: Query) -> None:
            assert await query == await query

        off = manager.bus.on("database:query", twice)
        await add(db, "a")
        off.cancel()
        assert await count(db) == 1

        def shout(query: Any) -> Any:
            if query.operation != "insert":
                return None
            return query.replace(query.statement.replace("VALUES (", "SELECT upper("))

        def stop(query: Any) -> None:
            raise Stop(query)

        manager.bus.on("database:query", shout)
        manager.bus.on("database:query", stop, priority=1)
        await add(db, "loud")
        async with db.session() as session:
            found = (await session.execute(text("SELECT body FROM notes ORDER BY id"))).scalars()
            assert found.all() == ["a", "LOUD"]


async def test_queries_in_a_hook_fire_no_other_and_neither_does_the_storage(app: App) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    async with app.manager(storage="sqlite:///:memory:") as manager:
        db, fired = manager.use("database"), list[object]()
        space = manager.use("storage").namespace("tests")

        async def audit(query: Any) -> None:
            fired.append(query.operation)
            await count(db)
            await space.set("key", len(fired))

        manager.bus.on("database:query", audit)
        await count(db)
        assert fired == ["select"]
        await space.set("other", 1)
        assert fired == ["select", "set"]


async def test_a_cancelled_author_cuts_off_its_query(app: App) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    async with app.manager(plugins={"database": {"pool_size": 1}}) as manager:
        db, running = manager.use("database"), asyncio.Event()
        slow = "SELECT pg_sleep(20)"
        if db.dialect == "sqlite":
            slow = (
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 200000) "
                "SELECT max(x) FROM n"
            )

        async def around(query: Query) -> object:
            running.set()
            return await query

        off = manager.bus.on("database:query", around)

        async def work(session: AsyncSession) -> None:
            async with session:
                await session.execute(text(slow))

        task = asyncio.create_task(work(db.session()))
        await running.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        off.cancel()
        assert await count(db) == 0  # the only connection is free and works


async def test_statements_are_spans_with_text_and_without_values(app: App) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    tracing = {"tracing": {"keep": 50, "sample": 1.0}}
    app.plugin(
        "asking",
        """
        from sqlalchemy import text
        def load(context):
            async def ask(request):
                async with context.database.session() as session:
                    await session.execute(text("SELECT :value"), {"value": "hidden-word"})
                return {}
            context.add_route("GET", "/ask", ask)
        """,
    )
    import httpx

    async with app.manager(plugins=tracing) as manager:
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            assert (await client.get("/ask")).status_code == 200
        (trace, *_) = [
            trace
            for trace in await manager.use("tracing").traces()
            if any(span["operationName"] == "GET /ask" for span in trace["spans"])
        ]
    spans = [span for span in trace["spans"] if span["operationName"].startswith("SELECT")]
    assert len(spans) == 1
    tags = {tag["key"]: tag["value"] for tag in spans[0]["tags"]}
    assert tags["db.operation.name"] == "SELECT"
    assert tags["db.query.text"].startswith("SELECT ")
    assert tags["veko.plugin"] == "asking"
    assert "hidden-word" not in str(trace)
    assert spans[0]["duration"] > 0

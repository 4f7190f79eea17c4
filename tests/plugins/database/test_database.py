"""The service: sessions, transactions, one per request, events, what is missing."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from veko import OptionError, ServiceError, VekoError
from veko_plugins.database import Database
from veko_plugins.database.urls import read_url

from .conftest import MIGRATES, NOTES, App

INSERT = text("INSERT INTO notes (body) VALUES (:body)")
COUNT = text("SELECT count(*) FROM notes")


async def count(db: Database) -> int:
    async with db.session() as session:
        return int((await session.execute(COUNT)).scalar_one())


async def test_a_session_keeps_what_it_commits(app: App) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    async with app.manager() as manager:
        assert not manager.report.failed
        db = manager.use("database")
        async with db.session() as session:
            await session.execute(INSERT, {"body": "forgotten"})
        assert await count(db) == 0
        async with db.session() as session:
            await session.execute(INSERT, {"body": "kept"})
            await session.commit()
        async with db.begin() as session:
            await session.execute(INSERT, {"body": "kept too"})

        async def fail() -> None:
            async with db.begin() as session:
                await session.execute(INSERT, {"body": "undone"})
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert await count(db) == 2
    async with app.manager() as manager:
        assert await count(manager.use("database")) == 2


async def test_a_cancelled_transaction_is_rolled_back_and_leaves_no_connection(app: App) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    async with app.manager(plugins={"database": {"pool_size": 1}}) as manager:
        db = manager.use("database")
        inside = asyncio.Event()

        async def work() -> None:
            async with db.begin() as session:
                await session.execute(INSERT, {"body": "x"})
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await count(db) == 0


async def test_models_work(app: App) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]

    app.plugin("notes", MIGRATES, a=NOTES)
    async with app.manager() as manager:
        db = manager.use("database")
        async with db.begin() as session:
            session.add_all([Note(body="a"), Note(body="b")])
        async with db.session() as session:
            note = await session.get_one(Note, 1)
            note.body = "changed"
            await session.commit()
            assert note.body == "changed"  # not expired: it needs no connection
        assert await count(db) == 2


async def test_sqlite_has_sane_settings(sqlite: App) -> None:
    async with sqlite.manager() as manager, manager.use("database").session() as session:
        found = {
            name: (await session.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    assert found == {
        "journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000, "synchronous": 1,
    }  # fmt: skip
    assert (sqlite.root / "data/app.db").is_file()  # relative to the application


async def test_memory_is_a_database_that_does_not_stay(tmp_path: Path) -> None:
    app = App(tmp_path, "sqlite:///:memory:")
    app.plugin("notes", MIGRATES, a=NOTES)
    for _ in range(2):
        async with app.manager() as manager:
            db = manager.use("database")
            async with db.begin() as session, db.session() as other:
                await session.execute(INSERT, {"body": "x"})
                assert (await other.execute(COUNT)).scalar_one() == 0
            assert await count(db) == 1


PER_REQUEST = """
from sqlalchemy import text

async def load(context):
    db = context.database
    await db.migrate()

    async def add(request):
        session = request.state["session"]
        data = await request.json()
        await session.execute(text("INSERT INTO notes (body) VALUES (:body)"), data)
        if data["body"] == "refused":
            return Response({"no": True}, status=409)
        if data["body"] == "broken":
            raise RuntimeError("broken")
        return {"ok": True}

    async def idle(request):
        return {"session": type(request.state["session"]).__name__}

    context.add_route("POST", "/notes", db.per_request, add)
    context.add_route("GET", "/idle", db.per_request, idle)

from veko_plugins import Response
"""


async def test_a_request_has_one_session_committed_unless_it_fails(app: App) -> None:
    import httpx

    app.plugin("notes", PER_REQUEST, a=NOTES)
    async with app.manager(plugins={"database": {"pool_size": 1}}) as manager:
        assert not manager.report.failed
        transport = httpx.ASGITransport(manager.asgi, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            statuses = [
                (await client.post("/notes", json={"body": body})).status_code
                for body in ("one", "refused", "broken", "two", "one")
            ]
            assert statuses == [200, 409, 500, 200, 500]  # the last one is not unique
            assert (await client.get("/idle")).json() == {"session": "AsyncSession"}
        assert await count(manager.use("database")) == 2


async def test_without_the_option_it_says_how_to_switch_it_on(tmp_path: Path) -> None:
    app = App(tmp_path, "")
    app.plugin("attached", "async def load(context):\n    context.database.session()")
    app.plugin("used", "def load(context):\n    context.use('database')")
    async with app.manager(database=None) as manager:
        for name in ("attached", "used"):
            assert "Set the option `database`" in str(manager.report.failed[name])
        with pytest.raises(ServiceError, match=r"sqlite:///data\.db"):
            manager.use("database")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("data.db", "is not a URL"),
        ("sqlite://", "has no path"),
        ("oracul://u:hidden-word@h/x", "scheme 'oracul' is unknown"),
        ("postgresql+psycopg2://u:hidden-word@h/x", "psycopg2"),
        ("sqlite+pysqlite:///x.db", "not for asyncio"),
        ("mysql+asyncmy://u:hidden-word@h/x", "asyncmy"),
    ],
)
def test_a_wrong_url_says_what_to_do_and_no_secret(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        read_url(url, tmp_path)
    assert says in str(caught.value)
    assert caught.value.remedy
    assert "hidden-word" not in f"{caught.value} {caught.value.__cause__}"


async def test_an_unreachable_server_stops_the_start_without_its_password(tmp_path: Path) -> None:
    app = App(tmp_path, "postgresql://veko:hidden-word@127.0.0.1:1/app")
    manager = app.manager()
    assert "hidden-word" not in repr(manager)
    with pytest.raises(VekoError, match=r"postgresql at 127\.0\.0\.1:1/app cannot be") as caught:
        await manager.start()
    assert "hidden-word" not in str(caught.value)
    await manager.stop()


async def test_errors_hide_values(app: App) -> None:
    app.plugin("notes", MIGRATES, a=NOTES)
    async with app.manager() as manager:
        db = manager.use("database")
        async with db.begin() as session:
            await session.execute(INSERT, {"body": "hidden-word"})
        with pytest.raises(IntegrityError) as caught:
            async with db.begin() as session:
                await session.execute(INSERT, {"body": "hidden-word"})
        if db.dialect == "sqlite":  # PostgreSQL's own message says which value is there
            assert "hidden-word" not in str(caught.value)


async def test_a_locked_file_is_a_bounded_wait(sqlite: App) -> None:
    sqlite.plugin("notes", MIGRATES, a=NOTES)
    async with sqlite.manager(plugins={"database": {"lock_timeout": 0.2}}) as manager:
        db = manager.use("database")
        other = sqlite3.connect(sqlite.root / "data/app.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            assert await count(db) == 0  # readers go on
            with pytest.raises(OperationalError, match="database is locked"):
                async with db.begin() as session:
                    await session.execute(INSERT, {"body": "x"})
        finally:
            other.close()
        async with db.begin() as session:
            await session.execute(INSERT, {"body": "x"})
        assert await count(db) == 1


async def test_writers_of_sqlite_wait_for_each_other_instead_of_failing(sqlite: App) -> None:
    sqlite.plugin("notes", MIGRATES, a=NOTES)
    async with sqlite.manager() as manager:
        db = manager.use("database")

        async def add(number: int) -> None:
            async with db.begin() as session:  # reads first, writes later
                before = (await session.execute(COUNT)).scalar_one()
                await asyncio.sleep(0)
                await session.execute(INSERT, {"body": f"{number} after {before}"})

        await asyncio.gather(*(add(number) for number in range(30)))
        async with db.session() as session:
            found = (await session.execute(text("SELECT body FROM notes"))).scalars().all()
        assert sorted(int(body.split()[-1]) for body in found) == list(range(30))


async def test_an_exhausted_pool_is_a_bounded_wait_that_says_who_holds_it(app: App) -> None:
    app.plugin(
        "greedy",
        """
        from sqlalchemy import text
        async def load(context):
            async def take():
                session = context.database.session()
                await session.execute(text("SELECT 1"))
                return session
            context.provide("take", take)
        """,
    )
    settings = {"database": {"pool_size": 2, "pool_timeout": 0.2}}
    async with app.manager(plugins=settings) as manager:
        db = manager.use("database")
        taken = [await manager.use("take")() for _ in range(2)]
        with pytest.raises(NoConnection, match=r"all 2 are in use \(greedy 2 for up to"):
            async with db.session() as session:
                await session.execute(text("SELECT 1"))
        for session in taken:
            await session.close()
        async with db.session() as session:
            await session.execute(text("SELECT 1"))

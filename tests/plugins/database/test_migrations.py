"""Migrations: in the transaction of the load, all or nothing, by one process at a time."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from veko.errors import LoadError, VekoError
from veko_plugins.database import Database, MigrationError
from veko_plugins.database.migrations import version_table

from .conftest import MIGRATES, NOTES, App, migration

TAGS = migration(
    "0002",
    """
    op.create_table("tags", sa.Column("id", sa.Integer, primary_key=True))
    op.add_column("notes", sa.Column("tag", sa.Integer))
    """,
    after="0001",
)
BROKEN = migration(
    "0002",
    """
    op.create_table("tags", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("INSERT INTO notes (body) VALUES ('half')")
    op.add_column("notes", sa.Column("tag", sa.Integer))
    op.execute("INSERT INTO nowhere VALUES (1)")
    """,
    after="0001",
)
COUNTING = """
import time
from sqlalchemy import text

async def load(context):
    db = context.database
    await db.migrate()
    async with db.begin() as session:
        body = f"{VERSION} {time.monotonic()}"
        await session.execute(text("INSERT INTO notes (body) VALUES (:body)"), {"body": body})

    async def count():
        async with db.session() as session:
            return (await session.execute(text("SELECT count(*) FROM notes"))).scalar_one()

    context.provide("count", count)
"""


async def tables(db: Database) -> set[str]:
    """The tables of plugins."""
    async with db.engine.connect() as connection:
        found = await connection.run_sync(lambda one: inspect(one).get_table_names())
    return {name for name in found if not name.startswith("veko_")}


async def columns(db: Database, table: str) -> set[str]:
    async with db.engine.connect() as connection:
        found = await connection.run_sync(lambda one: inspect(one).get_columns(table))
    return {column["name"] for column in found}


async def owners(db: Database) -> dict[str, str]:
    async with db.session() as session:
        rows = await session.execute(text("SELECT name, plugin FROM veko_tables"))
        return {row.name: row.plugin for row in rows}


async def test_half_of_a_migration_leaves_nothing(app: App) -> None:
    folder = app.plugin("notes", MIGRATES, a=NOTES, b=BROKEN)
    async with app.manager() as manager:
        error = manager.report.failed["notes"]
        assert "a migration failed" in str(error)
        assert "nowhere" in str(error)
        db = manager.use("database")
        assert await tables(db) == set()
        async with db.engine.connect() as connection:
            left = await connection.run_sync(lambda one: inspect(one).get_table_names())
        assert left == []
        (folder / "migrations" / "b.py").write_text(TAGS)
        await manager.load_plugin("notes")
        assert await tables(db) == {"notes", "tags"}
        assert await columns(db, "notes") == {"id", "body", "tag"}
        assert await owners(db) == {"notes": "notes", "tags": "notes"}


async def test_a_failing_migration_of_data_that_is_there_changes_nothing(app: App) -> None:
    folder = app.plugin("notes", f"VERSION = 1\n{COUNTING}", a=NOTES)
    async with app.manager() as manager:
        assert await manager.use("count")() == 1
    (folder / "migrations" / "b.py").write_text(BROKEN)
    async with app.manager() as manager:
        assert set(manager.report.failed) == {"notes"}
        db = manager.use("database")
        assert await tables(db) == {"notes"}
        assert await columns(db, "notes") == {"id", "body"}
        async with db.session() as session:
            bodies = (await session.execute(text("SELECT body FROM notes"))).scalars().all()
            assert [body[:2] for body in bodies] == ["1 "]


async def test_migrations_of_a_load_that_fails_later_are_undone(app: App) -> None:
    app.plugin("notes", f"VERSION = 1\n{COUNTING}    raise RuntimeError('too bad')\n", a=NOTES)
    app.plugin(
        "taken",
        """
        async def load(context):
            await context.database.migrate()
            context.provide("database", 1)
        """,
        a=NOTES.replace('"notes"', '"other"'),
    )
    async with app.manager() as manager:
        assert "too bad" in str(manager.report.failed["notes"])
        assert "is taken by database" in str(manager.report.failed["taken"])
        assert await tables(manager.use("database")) == set()


async def test_a_reload_migrates_and_one_that_fails_leaves_code_and_tables(app: App) -> None:
    folder = app.plugin("notes", f"VERSION = 1\n{COUNTING}", a=NOTES)
    async with app.manager() as manager:
        db = manager.use("database")
        (folder / "migrations" / "b.py").write_text(BROKEN)
        with pytest.raises(VekoError, match="a migration failed"):
            await manager.reload_plugin("notes")
        assert await columns(db, "notes") == {"id", "body"}
        assert await manager.use("count")() == 1
        (folder / "migrations" / "b.py").write_text(TAGS)
        code = folder / "__init__.py"
        good = code.read_text().replace("VERSION = 1", "VERSION = 2")
        code.write_text(f"{good}    raise RuntimeError('too bad')\n")
        with pytest.raises(LoadError, match="too bad"):
            await manager.reload_plugin("notes")
        assert await columns(db, "notes") == {"id", "body"}
        assert await manager.use("count")() == 1
        code.write_text(good)
        await manager.reload_plugin("notes")
        assert await columns(db, "notes") == {"id", "body", "tag"}
        assert await manager.use("count")() == 2


async def test_plugins_that_reload_together_share_one_transaction(app: App) -> None:
    notes = app.plugin("notes", f"VERSION = 1\n{COUNTING}", a=NOTES)
    tags = app.plugin(
        "tags",
        """
        dependencies = ["notes"]
        from sqlalchemy import text
        async def load(context):
            await context.database.migrate()
            async with context.database.begin() as session:
                await session.execute(text("SELECT tag FROM notes"))
            fail()
        def fail(): pass
        """,
    )
    (notes / "migrations" / "b.py").write_text(TAGS)
    tags_of = migration("0001", 'op.create_table("tagged", sa.Column("id", sa.Integer))')
    (tags / "migrations" / "a.py").write_text(tags_of)
    async with app.manager() as manager:
        assert not manager.report.failed
        db = manager.use("database")
        third = 'op.add_column("notes", sa.Column("third", sa.Integer))'
        (notes / "migrations" / "c.py").write_text(migration("0003", third, after="0002"))
        again = 'op.create_table("again", sa.Column("id", sa.Integer))'
        (tags / "migrations" / "b.py").write_text(migration("0002", again, after="0001"))
        code = (tags / "__init__.py").read_text()
        failing = code.replace("def fail(): pass", "def fail(): raise RuntimeError('too bad')")
        (tags / "__init__.py").write_text(failing)
        with pytest.raises(LoadError, match="too bad"):
            await manager.reload_plugin("notes")
        assert await tables(db) == {"notes", "tags", "tagged"}
        assert await columns(db, "notes") == {"id", "body", "tag"}
        (tags / "__init__.py").write_text(code)
        await manager.reload_plugin("notes")
        assert await tables(db) == {"notes", "tags", "tagged", "again"}
        assert await columns(db, "notes") == {"id", "body", "tag", "third"}
        assert (await owners(db))["again"] == "tags"


async def test_plugins_that_load_side_by_side_migrate_one_after_the_other(app: App) -> None:
    for number in range(6):
        app.plugin(
            f"p{number}", MIGRATES, a=NOTES.replace('"notes"', f'"notes{number}"'),
            b=migration("0002", f'op.create_table("more{number}", sa.Column("id", sa.Integer))',
                        after="0001"),
        )  # fmt: skip
    async with app.manager() as manager:
        assert not manager.report.failed
        assert await owners(manager.use("database")) == {
            f"{kind}{number}": f"p{number}" for kind in ("notes", "more") for number in range(6)
        }


async def test_loads_that_wait_for_each_other_end_with_a_message(app: App) -> None:
    app.plugin(
        "first",
        """
        async def load(context):
            await context.database.migrate()
            context.provide("early", 1)
            await context.when("late")
        """,
        a=NOTES,
    )
    app.plugin(
        "second",
        """
        import asyncio
        async def load(context):
            await asyncio.sleep(0.3)
            await context.database.migrate()
            context.provide("late", 1)
        """,
        a=NOTES.replace('"notes"', '"other"'),
    )
    settings = {"database": {"migration_timeout": 0.5}}
    async with app.manager(plugins=settings, timeout=5.0) as manager:
        message = str(manager.report.failed["second"])
        assert "waited 0.5 s for the load of first" in message
        assert "let it wait first" in message


STARTING = """
import asyncio, sys
from veko_plugins import PluginManager

async def main():
    options = dict(database=sys.argv[2], storage="none", max_retries=0, adapter="asgi")
    async with PluginManager(root=sys.argv[1], **options) as manager:
        print("ready", flush=True)
        sys.stdin.readline()
        await manager.load_plugin("notes")
        print(manager.get_plugin("notes").state, await manager.use("count")(), flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""


async def test_workers_that_start_at_once_migrate_once(app: App) -> None:
    slow = "import time; time.sleep(0.3)\nop.execute(\"INSERT INTO notes (body) VALUES ('once')\")"
    folder = app.plugin("notes", "", a=NOTES, b=migration("0002", slow, after="0001"))
    counting = f"import os\nVERSION = os.getpid()\n{COUNTING}"
    (folder / "__init__.py").write_text(
        f"name = 'notes'\nversion = '1.0.0'\nenabled = True\n{counting}"
    )
    moved = app.root / "notes"
    folder.rename(moved)
    await asyncio.to_thread(_start_at_once, app, folder, moved)


def _start_at_once(app: App, folder: Path, moved: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", STARTING, str(app.root), app.url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ),
        )
        for _ in range(3)
    ]  # fmt: skip
    try:
        assert [_line(worker) for worker in workers] == [["ready"]] * 3
        moved.rename(folder)
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        lines = [_line(worker) for worker in workers]
        assert [line[0] for line in lines] == ["active"] * 3
        assert max(int(line[1]) for line in lines) == 4  # one of the migration, one of each
    finally:
        for worker in workers:
            worker.communicate("\n", timeout=30)


def _line(worker: subprocess.Popen[str]) -> list[str]:
    assert worker.stdout is not None
    return worker.stdout.readline().split()


async def test_older_code_runs_on_newer_tables_unless_a_migration_breaks_it(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    folder = app.plugin("notes", f"VERSION = 1\n{COUNTING}", a=NOTES, b=TAGS)
    async with app.manager() as manager:
        assert await manager.use("count")() == 1
    newer = folder / "migrations" / "b.py"
    newer.unlink()
    (folder / "__init__.py").write_text(
        (folder / "__init__.py").read_text().replace("VERSION = 1", "VERSION = 2")
    )
    async with app.manager() as manager:
        assert await manager.use("count")() == 2
        assert "its tables are at 0002, newer than its code, which ends at 0001" in caplog.text


async def test_code_that_a_migration_breaks_does_not_load(app: App) -> None:
    drops = 'op.rename_table("notes", "papers")'
    broken = migration("0002", drops, after="0001", extra="breaks = True")
    folder = app.plugin("notes", MIGRATES, a=NOTES, b=broken)
    async with app.manager() as manager:
        assert not manager.report.failed
        assert await owners(manager.use("database")) == {"papers": "notes"}
    (folder / "migrations" / "b.py").unlink()
    async with app.manager() as manager:
        message = str(manager.report.failed["notes"])
        assert "0002 breaks older code" in message
        assert "restore" in message
    (folder / "migrations" / "a.py").write_text(NOTES.replace("0001", "other"))
    async with app.manager() as manager:
        assert "another line" in str(manager.report.failed["notes"]) or "breaks" in str(
            manager.report.failed["notes"]
        )


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a": "def upgrade(:\n"}, "cannot be read"),
        ({"b": TAGS}, "cannot be read"),
        ({"a": NOTES, "b": NOTES}, "0001"),
        ({"a": NOTES.replace("def upgrade", "def upgrde")}, "upgrade"),
    ],
    ids=["syntax", "no-base", "twice", "no-upgrade"],
)
async def test_wrong_files_are_named_and_change_nothing(
    sqlite: App, files: dict[str, str], says: str
) -> None:
    sqlite.plugin("notes", MIGRATES, **files)
    async with sqlite.manager() as manager:
        error = manager.report.failed["notes"]
        assert says in str(error)
        assert "migrations" in str(error)
        assert await tables(manager.use("database")) == set()


async def test_two_branches_are_both_applied(app: App) -> None:
    other = TAGS.replace("0002", "0003").replace("tag", "label")
    app.plugin("notes", MIGRATES, a=NOTES, b=TAGS, c=other)
    for _ in range(2):
        async with app.manager() as manager:
            assert not manager.report.failed
            columns_of_notes = await columns(manager.use("database"), "notes")
            assert columns_of_notes == {"id", "body", "tag", "label"}


async def test_two_edits_of_a_migration_within_a_second_both_count(sqlite: App) -> None:
    folder = sqlite.plugin("notes", MIGRATES, a=NOTES)
    async with sqlite.manager() as manager:
        for name in "abc":
            # Of one size: compiled files that are found by time and size would not be replaced.
            file = folder / "migrations" / "b.py"
            failing = f'raise RuntimeError("it is {name}")'
            file.write_text(migration("0002", failing, after="0001"))
            with pytest.raises(VekoError, match=f"it is {name}"):
                await manager.reload_plugin("notes")
    assert not (folder / "migrations" / "__pycache__").exists()


async def test_plugins_without_tables_or_folder_and_migrate_elsewhere(sqlite: App) -> None:
    sqlite.plugin("plain", "async def load(context):\n    context.database.session()")
    sqlite.plugin("empty", MIGRATES)
    lacking = sqlite.plugin("lacking", MIGRATES)
    (lacking / "migrations").rmdir()
    async with sqlite.manager() as manager:
        assert set(manager.report.failed) == {"lacking"}
        assert "there is no folder" in str(manager.report.failed["lacking"])
        with pytest.raises(MigrationError, match=r"in load\(\) only"):
            await manager.use("database").migrate()


async def test_names_of_version_tables_are_short_and_differ() -> None:
    assert version_table("notes") == "veko_version_notes"
    long = ["x" * 80 + end for end in "ab"]
    names = {version_table(name) for name in long}
    assert len(names) == 2
    assert max(map(len, names)) == 63


async def test_code_that_is_rolled_back_to_runs_on_the_newer_tables(app: App) -> None:
    folder = app.plugin("notes", f"VERSION = 1\n{COUNTING}", a=NOTES)
    settings = {"watch_mode": True, "allow_hot_reload": False, "probation": 30.0}
    async with app.manager(**settings) as manager:
        db = manager.use("database")
        rolled = asyncio.Event()
        manager.on("plugin:rollback", lambda *_: rolled.set())
        (folder / "migrations" / "b.py").write_text(TAGS)
        code = (folder / "__init__.py").read_text().replace("VERSION = 1", "VERSION = 2")
        (folder / "__init__.py").write_text(
            code + "    def fail(): raise RuntimeError('too bad')\n    context.hook('x', fail)\n"
        )
        await manager.reload_plugin("notes")
        assert await columns(db, "notes") == {"id", "body", "tag"}
        for _ in range(30):
            await manager.bus.emit("x")
        await asyncio.wait_for(rolled.wait(), 20)
        while manager.get_plugin("notes").module.VERSION != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert manager.get_plugin("notes").active
        assert await columns(db, "notes") == {"id", "body", "tag"}
        assert await manager.use("count")() == 3


async def test_switching_off_and_on_or_loading_again_migrates_nothing(app: App) -> None:
    app.plugin("notes", f"VERSION = 1\n{COUNTING}", a=NOTES)
    async with app.manager(plugins={"database": {"pool_size": 1}}) as manager:
        await manager.toggle_plugin("notes", False)
        await manager.toggle_plugin("notes", True)
        assert await manager.use("count")() == 1
        await manager.unload_plugin("notes")
        await manager.load_plugin("notes")
        assert await manager.use("count")() == 2
        await manager.restart()
        assert await manager.use("count")() == 3


async def test_a_process_that_is_killed_in_a_migration_leaves_nothing(app: App) -> None:
    waits = 'op.create_table("tags", sa.Column("id", sa.Integer))\n'
    waits += 'import time; print("inside", flush=True); time.sleep(60)'
    folder = app.plugin("notes", MIGRATES, a=NOTES, b=migration("0002", waits, after="0001"))
    await asyncio.to_thread(_kill_inside, app)
    (folder / "migrations" / "b.py").write_text(TAGS)
    async with app.manager() as manager:
        assert not manager.report.failed
        assert await columns(manager.use("database"), "notes") == {"id", "body", "tag"}


def _kill_inside(app: App) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTING, str(app.root), app.url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as worker:  # fmt: skip
        assert _line(worker) == ["inside"]
        worker.kill()


async def test_code_that_is_brought_back_does_not_run_the_new_migrations(
    app: App,
) -> None:
    folder = app.plugin("notes", f"reload = 'restart'\nVERSION = 1\n{COUNTING}", a=NOTES)
    async with app.manager() as manager:
        (folder / "migrations" / "b.py").write_text(BROKEN)
        with pytest.raises(VekoError, match="a migration failed"):
            await manager.reload_plugin("notes")
        assert manager.get_plugin("notes").active  # its old code, started once more
        assert await manager.use("count")() == 2
        assert await columns(manager.use("database"), "notes") == {"id", "body"}
        code = (folder / "__init__.py").read_text()
        (folder / "__init__.py").write_text(f"{code}    raise RuntimeError('too bad')\n")
        (folder / "migrations" / "b.py").write_text(TAGS)
        with pytest.raises(VekoError, match="too bad"):
            await manager.reload_plugin("notes")
        assert manager.get_plugin("notes").active
        assert await columns(manager.use("database"), "notes") == {"id", "body"}
        (folder / "__init__.py").write_text(code)
        await manager.reload_plugin("notes")
        assert await columns(manager.use("database"), "notes") == {"id", "body", "tag"}


async def test_a_migration_that_exceeds_the_time_limit_of_the_load_is_undone(app: App) -> None:
    slow = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000000) "
        "SELECT max(x) FROM n"
    )
    waits = f'op.create_table("tags", sa.Column("id", sa.Integer))\nop.execute("{slow}")'
    folder = app.plugin("notes", MIGRATES, a=NOTES, b=migration("0002", waits, after="0001"))
    async with app.manager(timeout=0.5) as manager:
        assert "0.5 s" in str(manager.report.failed["notes"])
        assert await tables(manager.use("database")) == set()
    (folder / "migrations" / "b.py").write_text(TAGS)
    async with app.manager() as manager:
        assert not manager.report.failed
        assert await columns(manager.use("database"), "notes") == {"id", "body", "tag"}

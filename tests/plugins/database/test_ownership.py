"""The tables of plugins that are gone: listed, exported, purged."""

import asyncio
import json
import shutil
import stat
import subprocess
import sys

import pytest
from sqlalchemy import inspect, text

from veko import NotFoundError
from veko_plugins.database import DatabaseError, Owned

from .conftest import MIGRATES, App, migration

BOOKS = migration(
    "0001",
    """
    op.create_table(
        "authors",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Enum("alive", "dead", name="kind_of_author")),
    )
    op.create_table(
        "books",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("author", sa.Integer, sa.ForeignKey("authors.id")),
        sa.Column("data", sa.LargeBinary),
        sa.Column("price", sa.Numeric(10, 2)),
        sa.Column("since", sa.DateTime(timezone=True)),
    )
    op.execute("INSERT INTO authors VALUES (1, 'alive'), (2, 'dead')")
    op.bulk_insert(
        sa.table("books", *[sa.column(n) for n in ("id", "author", "data", "price")],
                 sa.column("since", sa.DateTime(timezone=True))),
        [{"id": 1, "author": 2, "data": b"\\x00\\xff", "price": 9.5,
          "since": __import__("datetime").datetime(2026, 1, 2, tzinfo=__import__("datetime").UTC)}],
    )
    """,
)


async def veko(app: App, *words: str, answer: str = "") -> tuple[int, str]:
    """Run `veko database …` in a process of its own; return its exit code and output."""
    (app.root / "veko.toml").write_text(f"database = {app.url!r}\n")

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "veko_plugins.cli", "database", *words, "--dir", str(app.root)],
            check=False, capture_output=True, text=True, input=answer,
        )  # fmt: skip

    done = await asyncio.to_thread(run)
    return done.returncode, done.stdout + done.stderr


async def test_export_and_purge_of_a_plugin_that_is_gone(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = app.plugin("books", MIGRATES, a=BOOKS)
    app.plugin("plain", "def load(): pass")
    async with app.manager() as manager:
        assert not manager.report.failed
        db = manager.use("database")
        assert await db.owned() == {
            "books": Owned("books", {"authors": 2, "books": 1}, ("0001",)),
        }
        with pytest.raises(DatabaseError, match="Unload it first"):
            await db.purge("books")
        with pytest.raises(NotFoundError):
            await db.purge("nobody")
        shutil.rmtree(folder)
        await manager.unload_plugin("books")
    said = "books is gone and its tables stay: authors (2 rows), books (1 rows)"
    assert caplog.text.count(said) == 1
    async with app.manager():
        assert caplog.text.count(said) == 2
        assert "veko database purge books" in caplog.text

    code, output = await veko(app, "list")
    assert (code, output) == (0, "books at 0001\n  authors: 2 rows\n  books: 1 rows\n")
    file = app.root / "saved" / "books.jsonl"
    code, output = await veko(app, "export", "books", str(file))
    assert (code, output.splitlines()[-1]) == (0, f"wrote {file}")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0] == {
        "format": "veko database export 1", "plugin": "books", "revisions": ["0001"],
    }  # fmt: skip
    assert lines[1] == {"table": "authors", "columns": ["id", "kind"]}
    assert lines[2:4] == [[1, "alive"], [2, "dead"]]
    assert lines[4]["table"] == "books"
    assert lines[5][:4] == [1, 2, "AP8=", "9.50"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    code, output = await veko(app, "export", "books", str(file))
    assert code != 0
    assert "exists" in output

    code, output = await veko(app, "purge", "books", answer="n\n")
    assert code == 1
    assert "Nothing was changed." in output
    code, output = await veko(app, "purge", "books", "--yes")
    assert (code, output.splitlines()[0]) == (0, "dropped 2 tables of books")
    code, output = await veko(app, "purge", "books", "--yes")
    assert code != 0
    assert "has nothing in the database" in output
    async with app.manager() as manager:
        async with manager.use("database").engine.connect() as connection:
            names = await connection.run_sync(lambda one: inspect(one).get_table_names())
        assert set(names) == {"veko_migrations", "veko_tables"}
        app.plugin("books", MIGRATES, a=BOOKS)
        await manager.load_plugin("books")  # it begins anew


async def test_purging_tables_that_others_refer_to_is_refused_and_drops_none(app: App) -> None:
    folder = app.plugin("books", MIGRATES, a=BOOKS)
    app.plugin(
        "shelf",
        f"dependencies = ['books']\n{MIGRATES}",
        a=migration(
            "0001",
            'op.create_table("shelf", sa.Column("book", sa.Integer, sa.ForeignKey("books.id")))\n'
            'op.execute("INSERT INTO shelf VALUES (1)")',
        ),
    )
    async with app.manager() as manager:
        assert not manager.report.failed
    shutil.rmtree(folder)
    async with app.manager() as manager:
        db = manager.use("database")
        with pytest.raises(DatabaseError, match="the database refused it"):
            await db.purge("books")
        assert set(await db.owned()) == {"books", "shelf"}
        async with db.session() as session:
            assert (await session.execute(text("SELECT count(*) FROM books"))).scalar_one() == 1
        await db.purge("shelf")
        await db.purge("books")
        assert await db.owned() == {}


async def test_without_a_database_or_its_url_the_command_says_what_to_do(sqlite: App) -> None:
    sqlite.root.joinpath("veko.toml").write_text("")
    found = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "veko_plugins.cli", "database", "list", "--dir", str(sqlite.root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode != 0
    assert "Set the option `database`" in found.stderr
    assert "Traceback" not in found.stderr

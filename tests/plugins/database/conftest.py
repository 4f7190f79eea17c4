"""Applications with a database: on SQLite, and on a PostgreSQL that the tests start."""

import contextlib
import textwrap
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from veko_plugins import PluginManager

from ...storages.conftest import Server, running


class App:
    """An application's directory, with a database of its own.

    Attributes:
        root: The directory.
        url: The option `database`.
    """

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.url = url
        (root / "plugins").mkdir(exist_ok=True)

    def plugin(self, name: str, body: str, **migrations: str) -> Path:
        """Write a plugin of a folder, with its migrations by file name."""
        folder = self.root / "plugins" / name
        (folder / "migrations").mkdir(parents=True, exist_ok=True)
        text = f"name = {name!r}\nversion = '1.0.0'\n{textwrap.dedent(body)}"
        (folder / "__init__.py").write_text(text)
        for file, code in migrations.items():
            (folder / "migrations" / f"{file}.py").write_text(code)
        return folder

    def manager(self, **options: Any) -> PluginManager:
        """Make a manager that does not retry, without a storage."""
        given = {"database": self.url, "storage": "none", "max_retries": 0, "adapter": "asgi"}
        return PluginManager(root=self.root, **{**given, **options})


def migration(revision: str, body: str, after: str | None = None, extra: str = "") -> str:
    """Return the text of a migration."""
    return (
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = {revision!r}\ndown_revision = {after!r}\n{extra}\n"
        f"def upgrade():\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"
    )


NOTES = migration(
    "0001",
    """
    op.create_table(
        "notes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("body", sa.Text, nullable=False, unique=True),
    )
    """,
)
MIGRATES = """
async def load(context):
    await context.database.migrate()
"""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with running("postgres") as server:
        yield server


@contextlib.asynccontextmanager
async def new_database(server: Server) -> AsyncIterator[str]:
    """Make a database of its own on a server; yield its URL."""
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(server.url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    yield f"{server.url.rpartition('/')[0]}/{name}"


NewDatabase = Callable[[Server], AbstractAsyncContextManager[str]]


@pytest.fixture(params=["sqlite", "postgresql"])
async def app(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[App]:
    """An application on each database."""
    if request.param == "sqlite":
        yield App(tmp_path, "sqlite:///data/app.db")
        return
    server: Server = request.getfixturevalue("postgres")
    async with new_database(server) as url:
        yield App(tmp_path, url)


@pytest.fixture
def sqlite(tmp_path: Path) -> App:
    """An application on SQLite."""
    return App(tmp_path, "sqlite:///data/app.db")

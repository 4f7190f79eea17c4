"""Applications on disk, managers over them, and real servers in front of these."""

import asyncio
import gc
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins import PluginManager
from veko_plugins.http import find_adapter


class Home:
    """An application's directory.

    Attributes:
        root: The directory.
        folder: Its plugin folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "plugins"
        self.folder.mkdir()

    def plugin(self, name: str, body: str = "def load(): pass", **manifest: object) -> Path:
        """Write a plugin of one file; `version` is 1.0.0 unless given."""
        path = self.folder / f"{name}.py"
        path.write_text(source(name, body, **manifest))
        return path

    def package(self, name: str, body: str = "def load(): pass", **files: str) -> Path:
        """Write a plugin of a folder; other modules of it by name."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        (path / "__init__.py").write_text(textwrap.dedent(body))
        for module, text in files.items():
            (path / f"{module}.py").write_text(textwrap.dedent(text))
        return path

    def manager(self, app: Any = None, **options: Any) -> PluginManager:
        """Make a manager that does not retry, unless it is told to."""
        return PluginManager(app, root=self.root, **{"max_retries": 0, **options})


def source(name: str, body: str, **manifest: object) -> str:
    """Return the source of a plugin."""
    fields = {"name": name, "version": "1.0.0", **manifest}
    lines = [f"{key} = {value!r}" for key, value in fields.items()]
    return "\n".join(lines) + "\n" + textwrap.dedent(body).strip() + "\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An application without plugins."""
    return Home(tmp_path)


Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serve() -> Serve:
    """Serve a manager on a socket; gives a client of it."""

    @asynccontextmanager
    async def serve(
        manager: PluginManager, *, lifespan: bool = False
    ) -> AsyncIterator[httpx.AsyncClient]:
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        server = asyncio.create_task(
            find_adapter("litestar").serve(
                manager.asgi,
                "127.0.0.1",
                0,
                started=lambda host, port: listening.set_result(f"http://{host}:{port}"),
                stop=stop,
                drain_timeout=5.0,
                lifespan=lifespan,
            )
        )
        await asyncio.wait([listening, server], return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            await server
        try:
            async with httpx.AsyncClient(base_url=await listening) as client:
                yield client
        finally:
            stop.set()
            await server

    return serve


@pytest.fixture
def collected() -> Callable[..., None]:
    """Fail if an object that a weak reference was made to is still there."""

    def collected(*references: Callable[[], object]) -> None:
        gc.collect()
        alive = [reference() for reference in references]
        holders = [gc.get_referrers(one) for one in alive if one is not None]
        assert not any(one is not None for one in alive), (alive, holders)

    return collected

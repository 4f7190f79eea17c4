"""Applications with plugins in workers: the real manager, real files, real processes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins import PluginManager

SECONDS = 20.0


class App:
    """An application whose plugins are written as files."""

    def __init__(self, root: Path, stack: AsyncExitStack) -> None:
        self.root = root
        self.plugins = root / "plugins"
        self.plugins.mkdir(exist_ok=True)
        self._stack = stack
        self.manager: PluginManager
        self.client: httpx.AsyncClient
        self.errors: list[tuple[str | None, BaseException]] = []
        self.logs: list[tuple[str, str, str]] = []

    def write(self, **files: str) -> "App":
        for name, text in files.items():
            self.put(name, text)
        return self

    def put(self, name: str, text: str) -> Path:
        path = self.plugins / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    async def start(self, **options: Any) -> PluginManager:
        options = {"adapter": "asgi", "max_retries": 0, "watchdog": 0.0, **options}
        self.manager = manager = PluginManager(root=self.root, **options)
        manager.on("plugin:error", lambda name, error: self.errors.append((name, error)))
        manager.on(
            "log", lambda record: self.logs.append((record.plugin, record.type, record.message))
        )
        await self._stack.enter_async_context(manager)
        transport = httpx.ASGITransport(manager.asgi)
        client = httpx.AsyncClient(transport=transport, base_url="http://test")
        self.client = await self._stack.enter_async_context(client)
        return manager

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def json(self, path: str, **options: Any) -> Any:
        response = await self.get(path, **options)
        assert response.status_code == 200, response.text
        return response.json()

    async def until(self, true: Callable[[], Any]) -> None:
        """Wait until something holds that no event tells."""
        async with asyncio.timeout(SECONDS):
            while not true():  # noqa: ASYNC110 (what happens in another process is looked for)
                await asyncio.sleep(0.01)

    def generation(self, name: str) -> int:
        record = self.manager.get_plugin(name)
        assert record is not None
        return record.generation

    async def crash(self, name: str, path: str = "/crash") -> None:
        """Let the process of a plugin end, and wait until that is known."""
        before = len(self.errors)
        assert (await self.get(path)).status_code == 503
        await self.until(lambda: len(self.errors) > before)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with AsyncExitStack() as stack:
        yield App(tmp_path, stack)

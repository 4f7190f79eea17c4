"""An application whose plugins are files in a folder, driven over HTTP and by its manager."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_plugins import PluginManager

from .conftest import SECONDS


class App:
    """An application whose plugins are the files in a folder."""

    def __init__(self, manager: PluginManager, client: httpx.AsyncClient) -> None:
        self.manager = manager
        self.client = client
        self.logged: list[tuple[str, str, str]] = []
        manager.on("log", self._log)

    def _log(self, record: Any) -> None:
        self.logged.append((record.plugin, record.type, record.message))

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.post(path, **options)

    async def said(self, plugin: str, level: str, text: str) -> None:
        """Wait for a line in the log."""
        await self.until(
            lambda: any(
                one == plugin and kind == level and text in message
                for one, kind, message in self.logged
            ),
            lambda: f"{plugin} did not log {level}: {text}\n" + "\n".join(map(str, self.logged)),
        )

    async def wait(self) -> None:
        """Let some time pass for what no event reports."""
        await asyncio.sleep(0.05)

    async def until(self, true: Callable[[], bool], otherwise: Callable[[], str] = str) -> None:
        for _ in range(int(SECONDS * 100)):
            if true():
                return
            await asyncio.sleep(0.01)
        pytest.fail(otherwise())

    async def stored(self, plugin: str) -> dict[str, Any]:
        """What a plugin has stored."""
        path = await self.manager.backup_plugins()
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        start = rows.index({"namespace": plugin}) + 1
        return dict(itertools.takewhile(lambda row: isinstance(row, list), rows[start:]))


@contextlib.asynccontextmanager
async def running(root: Path, files: Mapping[str, str], **options: Any) -> AsyncIterator[App]:
    """Run an application in a folder.

    Args:
        root: The folder.
        files: Plugins to write, by the name of the file; `base_js` is `base.js`.
        options: Those of the manager.
    """
    for name, text in files.items():
        path = root / "plugins" / (name if "." in name else ".".join(name.rsplit("_", 1)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    manager = PluginManager(**{"root": root, "adapter": "asgi", "dev_mode": True} | options)
    transport = httpx.ASGITransport(app=manager.asgi)  # type: ignore[arg-type]
    client = httpx.AsyncClient(transport=transport, base_url="http://veko")
    app = App(manager, client)
    async with client, manager:
        yield app

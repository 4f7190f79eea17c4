"""An application in which one plugin misbehaves in a process of its own, and nobody else waits."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from veko_plugins import PluginManager

__all__ = ["SECONDS", "Watched", "until"]

_LONGEST = 1.0
"""Seconds that answers of another plugin may take: what misbehaves does so for a minute. One of all
may take longer, since a machine that runs other tests may give this process no turn."""
SECONDS = 30.0


class Watched:
    """An application with a good plugin in its process, and a bad one in a worker."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manager: PluginManager
        self.client: httpx.AsyncClient
        self.errors: list[tuple[str | None, str]] = []
        self.logs: list[tuple[str, str]] = []

    async def start(self, stack: AsyncExitStack, file: str, text: str, **options: Any) -> None:
        """Start the application.

        Args:
            stack: Ends it.
            file: The bad plugin's file.
            text: Its code.
            options: Options of the manager.
        """
        folder = self.root / "plugins"
        folder.mkdir()
        (folder / file).write_text(text)
        self.manager = PluginManager(
            root=self.root, enable_sandbox=True, adapter="asgi", max_retries=0, **options
        )
        self.manager.on("plugin:error", lambda name, e: self.errors.append((name, str(e))))
        self.manager.on("log", lambda r: self.logs.append((r.plugin, f"{r.message}")))
        await stack.enter_async_context(self.manager)
        good = {"name": "good", "version": "1", "load": self._load_good}
        await self.manager.load_plugin(good)
        transport = httpx.ASGITransport(self.manager.asgi)
        client = httpx.AsyncClient(transport=transport, base_url="http://test")
        self.client = await stack.enter_async_context(client)

    @staticmethod
    def _load_good(context: Any) -> None:
        async def fine() -> str:
            return "fine"

        context.add_route("GET", "/fine", fine)

    @contextlib.asynccontextmanager
    async def asked(self) -> AsyncIterator[None]:
        """Ask the good plugin all the time, and check how long its answers took."""
        waits: list[float] = []

        async def ask() -> None:
            while True:
                begun = time.perf_counter()
                await asyncio.sleep(0.005)
                assert (await self.client.get("/fine")).text == "fine"
                waits.append(time.perf_counter() - begun - 0.005)

        asking = asyncio.create_task(ask())
        try:
            yield
            await until(lambda: len(waits) > 9)
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
        longest = sorted(waits)[-2:]
        assert longest[0] < _LONGEST, f"answers took {longest} s"

    async def bad(self, path: str = "/bad") -> httpx.Response:
        async with asyncio.timeout(SECONDS):
            return await self.client.get(path, timeout=SECONDS)

    async def answers(self, path: str) -> httpx.Response:
        """Ask until the bad plugin answers again."""
        async with asyncio.timeout(SECONDS):
            while True:
                if (answer := await self.bad(path)).status_code == 200:
                    return answer
                await asyncio.sleep(0.05)

    async def reported(self, part: str) -> str:
        """Return the error of the bad plugin that has this in its text."""
        found: list[str] = []

        def is_there() -> bool:
            found[:] = [text for name, text in self.errors if part in text and name == "bad"]
            return bool(found)

        await until(is_there)
        assert {name for name, _ in self.errors} == {"bad"}
        return found[0]


async def until(true: Callable[[], object]) -> None:
    """Wait until something holds that no event reports."""
    async with asyncio.timeout(SECONDS):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

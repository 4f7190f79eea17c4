"""The base of every case: a kernel, the plugin `routes`, a real server and a real client.

A server serves all cases of a module with one adapter; each case loads and unloads its plugins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio.lowlevel
import httpx
import pytest

from veko import Kernel, Plugin, PluginRecord
from veko_plugins.http import HTTP, Adapter, Routes

__all__ = ["Guest", "Site", "anyio_backend", "served", "site", "verify_loop"]

_SETTLE_TURNS = 20
_DRAIN_SECONDS = 5.0


class Guest(Plugin):
    """A plugin whose `load` is a given function."""

    version = "1.0.0"

    def __init__(self, name: str, load: Callable[[Any], Any]) -> None:
        self.name = name
        self._load = load

    def load(self, context: Any) -> Any:
        """Call the function."""
        return self._load(context)


class Site:
    """A served application.

    Attributes:
        kernel: The application's kernel.
        url: The URL at which it is served.
        client: A client of it.
    """

    def __init__(self, kernel: Kernel, url: str, client: httpx.AsyncClient) -> None:
        self.kernel = kernel
        self.url = url
        self.client = client

    def errors(self, name: str = "guest") -> int:
        """Return the number of errors that are counted against a plugin."""
        record = self.kernel.get(name)
        assert record is not None
        return record.error_count

    @asynccontextmanager
    async def plugin(
        self, load: Callable[[Any], Any], name: str = "guest"
    ) -> AsyncIterator[PluginRecord]:
        """Keep a plugin loaded inside the block."""
        record = await self.kernel.load(Guest(name, load))
        try:
            yield record
        finally:
            if record.state != "unloaded":
                await self.kernel.unload(name)

    @asynccontextmanager
    async def route(
        self, method: str, path: str, *handlers: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Keep a route live inside the block."""
        async with self.plugin(lambda context: context.add_route(method, path, *handlers)):
            yield self.client


@asynccontextmanager
async def served(adapter: Adapter, **options: Any) -> AsyncIterator[Site]:
    """Serve an application without plugins behind an adapter.

    Args:
        adapter: The adapter.
        options: Options of `HTTP.serve`.
    """
    async with Kernel() as kernel:
        await kernel.load(Routes(adapter))
        http: HTTP = kernel.use("http")
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        serving = asyncio.create_task(
            http.serve(
                port=0,
                started=lambda host, port: listening.set_result(f"http://{host}:{port}"),
                stop=stop,
                drain_timeout=_DRAIN_SECONDS,
                **options,
            )
        )
        first: list[asyncio.Future[Any]] = [listening, serving]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        url = await listening
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            yield Site(kernel, url, client)
        stop.set()
        await serving


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Run the cases on asyncio, which HTTP needs."""
    return "asyncio", {}


@pytest.fixture(scope="module")
async def site(adapter: Adapter, anyio_backend: object) -> AsyncIterator[Site]:
    """Serve an application for the cases of a module; `adapter` is a fixture of the test module."""
    async with served(adapter) as found:
        yield found


@pytest.fixture(autouse=True)
async def verify_loop(site: Site) -> AsyncIterator[None]:
    """Fail a case that leaves a task behind; timers belong to the server, which keeps running."""
    before = {*asyncio.all_tasks()}
    yield
    left: set[asyncio.Task[Any]] = set()
    for _ in range(_SETTLE_TURNS):
        left = {task for task in asyncio.all_tasks() - before if "TestRunner" not in repr(task)}
        if not left:
            return
        await anyio.lowlevel.checkpoint()
    pytest.fail("left behind:\n" + "\n".join(sorted(map(repr, left))))

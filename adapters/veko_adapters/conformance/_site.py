"""What every case stands on: a kernel, the routes plugin, a real server and a real client.

The server is one a module and an adapter; plugins come and go with each case.
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
    """A plugin that does what it is given as `load`."""

    version = "1.0.0"

    def __init__(self, name: str, load: Callable[[Any], Any]) -> None:
        self.name = name
        self._load = load

    def load(self, context: Any) -> Any:
        """Do it."""
        return self._load(context)


class Site:
    """A served application.

    Attributes:
        kernel: Its kernel.
        url: Where it listens.
        client: A client of it.
    """

    def __init__(self, kernel: Kernel, url: str, client: httpx.AsyncClient) -> None:
        self.kernel = kernel
        self.url = url
        self.client = client

    def errors(self, name: str = "guest") -> int:
        """Return how many errors are counted against a plugin."""
        record = self.kernel.get(name)
        assert record is not None
        return record.error_count

    @asynccontextmanager
    async def plugin(
        self, load: Callable[[Any], Any], name: str = "guest"
    ) -> AsyncIterator[PluginRecord]:
        """Have a plugin loaded meanwhile."""
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
        """Have one route live meanwhile."""
        async with self.plugin(lambda context: context.add_route(method, path, *handlers)):
            yield self.client


@asynccontextmanager
async def served(adapter: Adapter, **options: Any) -> AsyncIterator[Site]:
    """Serve an application without plugins behind an adapter.

    Args:
        adapter: The adapter.
        options: For `HTTP.serve`.
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
        try:
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                yield Site(kernel, url, client)
        finally:
            stop.set()
            await serving


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Run the cases on asyncio, which HTTP needs."""
    return "asyncio", {}


@pytest.fixture(scope="module")
async def site(adapter: Adapter, anyio_backend: object) -> AsyncIterator[Site]:
    """Serve an application for the cases of a module; `adapter` is the running module's fixture."""
    async with served(adapter) as found:
        yield found


@pytest.fixture(autouse=True)
async def verify_loop(site: Site) -> AsyncIterator[None]:
    """Fail a case that leaves a task behind; the timers are the server's, which keeps running."""
    before = {*asyncio.all_tasks()}
    yield
    left: set[asyncio.Task[Any]] = set()
    for _ in range(_SETTLE_TURNS):
        left = {task for task in asyncio.all_tasks() - before if "TestRunner" not in repr(task)}
        if not left:
            return
        await anyio.lowlevel.checkpoint()
    pytest.fail("left behind:\n" + "\n".join(sorted(map(repr, left))))

"""One suite for every HTTP adapter: a kernel, the routes plugin, a real server, a real client.

The server is one a module; plugins come and go with each test.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio.lowlevel
import httpx
import pytest

from veko import Kernel, Plugin
from veko_plugins.http import HTTP, Routes, find_adapter

ADAPTERS = ("litestar",)


class Guest(Plugin):
    """A plugin that does what it is given as `load`."""

    version = "1.0.0"

    def __init__(self, name: str, load: Callable[[Any], Any]) -> None:
        self.name = name
        self._load = load

    def load(self, context: Any) -> Any:
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

    @asynccontextmanager
    async def plugin(self, load: Callable[[Any], Any], name: str = "guest") -> AsyncIterator[Any]:
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


@pytest.fixture
async def verify_loop(site: Site) -> AsyncIterator[None]:
    """Fail a test that leaves a task behind; the timers are those of the server, which goes on."""
    before = {*asyncio.all_tasks()}
    yield
    for _ in range(20):
        left = {task for task in asyncio.all_tasks() - before if "TestRunner" not in repr(task)}
        if not left:
            return
        await anyio.lowlevel.checkpoint()
    pytest.fail("left behind:\n" + "\n".join(sorted(map(repr, left))))


@pytest.fixture(scope="module", params=ADAPTERS)
async def site(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[Site]:
    async with Kernel() as kernel:
        await kernel.load(Routes(find_adapter(request.param)))
        http: HTTP = kernel.use("http")
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        serving = asyncio.create_task(
            http.serve(
                port=0,
                started=lambda host, port: listening.set_result(f"http://{host}:{port}"),
                stop=stop,
                drain_timeout=5.0,
            )
        )
        await asyncio.wait([listening, serving], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        url = await listening
        async with httpx.AsyncClient(base_url=url) as client:
            yield Site(kernel, url, client)
        stop.set()
        await serving

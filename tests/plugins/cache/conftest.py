"""Applications with a cache: in memory, in files, on a private Redis."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from veko_plugins import Cache, PluginManager

from ...storages.conftest import RedisServer, Server, running

Start = Callable[..., Awaitable["App"]]


class App:
    """A manager, and the namespaces of its plugins."""

    def __init__(self, manager: PluginManager) -> None:
        self.manager = manager
        self.contexts: dict[str, Any] = {}

    async def plugin(self, name: str, load: Callable[[Any], object] = lambda context: None) -> Any:
        """Load a plugin; returns its context."""

        def begin(context: Any) -> object:
            self.contexts[name] = context
            return load(context)

        await self.manager.load_plugin(self.manager.create_simple_plugin(name, begin))
        return self.contexts[name]

    async def cache(self, name: str = "guest") -> Cache:
        """Return the namespace of a plugin, which is loaded if it is not."""
        context = self.contexts.get(name) or await self.plugin(name)
        found: Cache = context.cache
        return found


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """A Redis for all tests that leave it alone."""
    with running("redis") as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis for one test, which may end it."""
    with running("redis") as server:
        assert isinstance(server, RedisServer)
        yield server


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """`await start(url, settings={...}, **options)`."""
    async with AsyncExitStack() as stack:

        async def begin(
            url: str = "memory:", settings: dict[str, Any] | None = None, **options: Any
        ) -> App:
            manager = PluginManager(
                root=tmp_path,
                cache=url,
                plugins={"cache": settings or {}},
                **{"auto_load": False, "storage": "memory:", "adapter": "asgi"} | options,
            )
            return App(await stack.enter_async_context(manager))

        yield begin


@pytest.fixture(params=["memory", "file", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of each kind of store, empty."""
    if request.param == "memory":
        return "memory:"
    if request.param == "file":
        return f"file:{tmp_path / 'cached'}"
    server = request.getfixturevalue("redis_server")
    name = f"t{abs(hash(request.node.name)) % 10**9}"
    return f"{server.url}?prefix={name}"

"""Late guards: a live route that one refuses leaves the table, and the guard goes live."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from veko import ConflictError, HookTimeout, Kernel, Plugin, RefusedError
from veko_plugins.http import HTTP, Route, Routes

pytestmark = pytest.mark.anyio


class Guest(Plugin):
    version = "1"

    def __init__(self, name: str, load: Callable[[Any], object]) -> None:
        self.name = name
        self._load = load

    def load(self, context: Any) -> object:
        return self._load(context)


class Site:
    """A kernel with routes, and what it reports."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.http: HTTP = kernel.use("http")
        self.reports: list[tuple[Any, str]] = []
        kernel.bus.on(
            "error:handle", lambda error, origin: self.reports.append((origin.plugin, str(error)))
        )

    async def load(self, name: str, load: Callable[[Any], object]) -> Any:
        return await self.kernel.load(Guest(name, load))

    async def get(self, path: str) -> int:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
            "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        await self.http.asgi(scope, receive, send)
        return int(sent[0]["status"])

    async def settled(self) -> None:
        """Wait until what was posted has been emitted."""
        for _ in range(50):
            await asyncio.sleep(0)

    @property
    def refused(self) -> list[str]:
        return [one.route.path for one in self.http.refused]


@pytest.fixture(params=["asgi", "litestar", "starlette"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with Kernel() as kernel:
        await kernel.load(Routes(request.param))
        yield Site(kernel)


def shop(context: Any) -> None:
    for path in ("/a", "/b", "/c"):
        context.add_route("GET", path, lambda: "served", sync_to_thread=False)


def guard_of(*paths: str, error: Callable[[], Exception] = ValueError) -> Callable[[Any], None]:
    def check(route: Route) -> None:
        if route.path in paths:
            raise error()

    return lambda context: context.hook("route:create", check)


async def test_a_route_that_a_late_guard_refuses_is_out_of_service(site: Site) -> None:
    owner = await site.load("shop", shop)
    guard = await site.load("guard", guard_of("/b"))
    await site.settled()
    assert guard.active
    assert [await site.get(path) for path in ("/a", "/b", "/c")] == [200, 404, 200]
    assert site.refused == ["/b"]
    [(plugin, text)] = site.reports
    assert plugin == "shop"
    assert "the route GET /b is out of service" in text
    assert "ValueError" in text
    assert (owner.error_count, guard.error_count) == (0, 0)
    await site.load("other", lambda context: context.hook("route:create", lambda route: None))
    await site.settled()
    assert len(site.reports) == 1  # it is refused still, and reported once
    await site.kernel.unload("guard")
    assert [await site.get(path) for path in ("/a", "/b", "/c")] == [200] * 3
    assert site.refused == []


async def test_a_reloaded_guard_may_change_its_mind(site: Site) -> None:
    await site.load("shop", shop)
    await site.load("guard", guard_of())
    for paths in (("/a", "/b"), ("/c",), (), ("/a", "/b", "/c")):
        await site.kernel.reload(Guest("guard", guard_of(*paths)))
        found = [path for path in ("/a", "/b", "/c") if await site.get(path) == 404]
        assert found == site.refused == list(paths)
    await site.kernel.toggle("guard", False)
    assert site.refused == []
    await site.kernel.toggle("guard", True)
    assert site.refused == ["/a", "/b", "/c"]
    await site.kernel.unload("shop")
    assert site.refused == []


async def test_a_route_of_a_late_hook_may_be_refused(site: Site) -> None:
    contexts: list[Any] = []
    await site.load("shop", shop)
    await site.load("guard", contexts.append)

    def check(route: Route) -> None:
        raise TypeError

    hook = contexts[0].hook("route:create", check)
    await hook
    assert site.refused == ["/a", "/b", "/c"]
    hook.cancel()
    await site.settled()
    assert site.refused == []
    assert await site.get("/a") == 200


async def test_a_new_route_that_is_refused_is_refused_with_its_plugin(site: Site) -> None:
    await site.load("guard", guard_of("/b"))
    with pytest.raises(RefusedError, match="GET /b"):
        await site.load("shop", shop)
    assert [await site.get(path) for path in ("/a", "/b", "/c")] == [404] * 3
    assert site.refused == []


async def test_a_late_guard_that_hangs_is_waited_for_once(site: Site) -> None:
    await site.load("shop", shop)
    seen: list[str] = []

    async def check(route: Route) -> None:
        seen.append(route.path)
        await asyncio.sleep(60)

    guard = await site.load(
        "guard", lambda context: context.hook("route:create", check, timeout=0.01)
    )
    assert guard.active
    assert seen == ["/a"]
    assert site.refused == ["/a", "/b", "/c"]
    assert HookTimeout.__name__ in site.http.refused[0].reason


async def test_a_route_that_a_late_guard_spoils_is_refused_alone(site: Site) -> None:
    await site.load("shop", shop)

    def bad(route: Route) -> Route | None:
        return Route("GET", "no/slash", route.handler) if route.path == "/c" else None

    def load(context: Any) -> None:
        context.hook("route:create", bad)

    guard = await site.load("guard", load)
    assert guard.active
    assert [await site.get(path) for path in ("/a", "/b")] == [200, 200]
    assert await site.get("/c") == 404
    assert len(site.refused) == 1


async def test_a_path_that_was_taken_meanwhile_stays_taken(site: Site) -> None:
    await site.load("shop", shop)
    await site.load("guard", guard_of("/b"))
    with pytest.raises(RefusedError):
        await site.load("late", shop)
    await site.kernel.reload(Guest("guard", lambda context: None))
    await site.kernel.reload(Guest("guard", only("shop", "/b")))
    await site.load(
        "late", lambda context: context.add_route("GET", "/b", lambda: "late", sync_to_thread=False)
    )
    await site.kernel.unload("guard")
    assert await site.get("/b") == 200
    assert site.refused == ["/b"]
    assert ConflictError.__name__ in site.http.refused[0].reason
    # It comes back at the next look, once the path is free.
    await site.kernel.unload("late")
    await site.load("other", guard_of())
    assert site.refused == []
    assert await site.get("/b") == 200


def only(plugin: str, path: str) -> Callable[[Any], None]:
    def check(route: Route) -> None:
        if (route.plugin, route.path) == (plugin, path):
            raise ValueError

    return lambda context: context.hook("route:create", check)


async def test_an_observer_of_route_create_refuses_nothing(site: Site) -> None:
    await site.load("shop", shop)

    def check(route: Route) -> None:
        raise ValueError

    await site.load("watch", lambda context: context.hook("route:create", check, observe=True))
    await site.load(
        "more", lambda context: context.add_route("GET", "/d", lambda: "d", sync_to_thread=False)
    )
    assert [await site.get(path) for path in ("/a", "/d")] == [200, 200]
    assert site.refused == []

"""The dispatcher and the routes plugin, without a server."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from veko import Kernel, NotFoundError, Plugin
from veko_plugins.http import Request, Response, Route, Routes, find_adapter

pytestmark = pytest.mark.anyio


class Guest(Plugin):
    version = "1.0.0"

    def __init__(self, load: Any, name: str = "guest") -> None:
        self.name = name
        self._load = load

    def load(self, context: Any) -> Any:
        return self._load(context)


@pytest.fixture
async def kernel() -> AsyncIterator[Kernel]:
    async with Kernel() as kernel:
        await kernel.load(Routes())
        yield kernel


@pytest.fixture
async def client(kernel: Kernel) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(kernel.use("http").asgi, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def speak(app: Any, scope: dict[str, Any], *messages: dict[str, Any]) -> list[Any]:
    """Speak ASGI to an application, and return what it says."""
    pending, said = list(messages), []

    async def receive() -> Any:
        return pending.pop(0)

    async def send(message: Any) -> None:
        said.append(message)

    await app(scope, receive, send)
    return said


async def test_lifespan_calls_what_the_host_gave(kernel: Kernel) -> None:
    asgi = kernel.use("http").asgi
    calls: list[str] = []

    async def startup() -> None:
        calls.append("startup")

    async def shutdown() -> None:
        calls.append("shutdown")

    asgi.startup, asgi.shutdown = startup, shutdown
    both = ({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    said = await speak(asgi, {"type": "lifespan"}, *both)
    assert [message["type"] for message in said] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert calls == ["startup", "shutdown"]


async def test_a_failed_startup_is_told_to_the_server(kernel: Kernel) -> None:
    async def startup() -> None:
        raise ValueError("no database")

    asgi = kernel.use("http").asgi
    asgi.startup = startup
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        said.append(message)

    with pytest.raises(ValueError, match="no database"):
        await asgi({"type": "lifespan"}, receive, send)
    assert said == [{"type": "lifespan.startup.failed", "message": "no database"}]


async def test_a_websocket_that_nobody_has_is_closed(kernel: Kernel) -> None:
    said = await speak(
        kernel.use("http").asgi,
        {"type": "websocket", "path": "/x", "headers": []},
        {"type": "websocket.connect"},
    )
    assert [message["type"] for message in said] == ["websocket.close"]


async def test_an_application_below_a_mount_sees_its_own_path(kernel: Kernel) -> None:
    await kernel.load(
        Guest(lambda context: context.add_route("GET", "/x", lambda request: request.path))
    )
    transport = httpx.ASGITransport(kernel.use("http").asgi, root_path="/app")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/app/x")).text == "/x"


async def test_a_reload_swaps_the_routes_and_no_request_fails(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    def version(number: int) -> Guest:
        def load(context: Any) -> None:
            context.add_route("GET", "/x", lambda request: str(number))

        return Guest(load)

    await kernel.load(version(0))
    answers: asyncio.Queue[int] = asyncio.Queue(maxsize=1)

    async def ask() -> None:
        while True:
            answer = await client.get("/x")
            await answers.put(int(answer.text) if answer.status_code == 200 else -1)

    asking = asyncio.create_task(ask())
    seen = [await answers.get()]
    for number in range(1, 20):
        await kernel.reload(version(number))
        seen += [await answers.get() for _ in range(3)]
    asking.cancel()
    await asyncio.wait([asking])
    assert seen == sorted(seen)
    assert set(seen) == set(range(20))


async def test_two_that_want_one_route_do_not_both_get_it(kernel: Kernel) -> None:
    loads = [
        kernel.load(Guest(lambda context: context.add_route("GET", "/x", print), f"p{number}"))
        for number in range(5)
    ]
    results = await asyncio.gather(*loads, return_exceptions=True)
    assert sum(isinstance(result, Exception) for result in results) == 4
    assert len(kernel.registry.entries("route")) == 1


async def test_a_name_that_no_adapter_has() -> None:
    with pytest.raises(NotFoundError, match="no HTTP adapter 'litestart'"):
        find_adapter("litestart")


@pytest.mark.parametrize("kind", ["route", "middleware", "guard"])
async def test_nothing_is_left_of_what_was_unloaded(
    kernel: Kernel, client: httpx.AsyncClient, kind: str
) -> None:
    references: list[weakref.ref[Any]] = []

    async def use() -> None:
        async def handler(a: int) -> int:
            return a

        async def middleware(request: Request, call_next: Any) -> Response:
            return await call_next(request)

        def guard(route: Route) -> None: ...

        def load(context: Any) -> None:
            if kind == "route":
                context.add_route("GET", "/x", middleware, handler)
            elif kind == "middleware":
                context.add_middleware(middleware)
            else:
                context.hook("route:create", guard)

        guest = Guest(load)
        references.extend(map(weakref.ref, (handler, middleware, guard, guest)))
        await kernel.load(guest)
        await client.get("/x?a=1")
        await kernel.unload("guest")

    await use()
    await asyncio.sleep(0)
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


async def test_a_hook_may_write_the_method_of_a_route_as_it_likes(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    def created(route: Route) -> Route:
        return msgspec.structs.replace(route, method="get")

    kernel.bus.on("route:create", created)
    await kernel.load(Guest(lambda context: context.add_route("GET", "/x", lambda: "there")))
    assert (await client.get("/x")).text == "there"
    assert (await client.post("/x")).status_code == 405


async def test_what_was_registered_last_is_heard_to_go_first(kernel: Kernel) -> None:
    heard: list[str] = []
    gone = asyncio.Event()

    def hear(value: Any) -> None:
        heard.append(getattr(value, "path", None) or value.__name__)
        if len(heard) == 6:
            gone.set()

    async def first(request: Request, call_next: Any) -> Response:
        return await call_next(request)

    async def second(request: Request, call_next: Any) -> Response:
        return await call_next(request)

    async def third(request: Request, call_next: Any) -> Response:
        return await call_next(request)

    def load(context: Any) -> None:
        for path in ("/a", "/b"):
            context.add_route("GET", path, lambda: "")
        for middleware, priority in ((first, 1), (second, 3), (third, 2)):
            context.add_middleware(middleware, priority)
        context.add_route("GET", "/c", lambda: "")

    for event in ("route:delete", "middleware:remove"):
        kernel.bus.on(event, hear)
    await kernel.load(Guest(load))
    await kernel.unload("guest")
    await asyncio.wait_for(gone.wait(), 5)
    assert [path for path in heard if path.startswith("/")] == ["/c", "/b", "/a"]
    assert [name for name in heard if not name.startswith("/")] == ["third", "second", "first"]


async def test_observers_hear_what_was_replaced_and_what_is_gone(kernel: Kernel) -> None:
    heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    for event in ("route:update", "route:delete", "middleware:remove"):
        kernel.bus.on(event, lambda value, event=event: heard.put_nowait((event, value)))

    async def middleware(request: Request, call_next: Any) -> Response:
        return await call_next(request)

    def old(request: Request) -> None: ...

    def new(request: Request) -> None: ...

    def load(handler: Any) -> Any:
        return lambda context: [
            context.add_route("GET", "/x", handler),
            context.add_route("GET", "/y", old),
            context.add_middleware(middleware),
        ]

    await kernel.load(Guest(load(old)))
    await kernel.reload(Guest(load(new)))
    event, route = await heard.get()
    assert (event, route.path, route.handler) == ("route:update", "/x", new)
    assert await heard.get() == ("middleware:remove", middleware)
    await kernel.unload("guest")
    gone = {(event, getattr(it, "path", it)) for event, it in [await heard.get() for _ in "123"]}
    assert gone == {
        ("route:delete", "/x"),
        ("route:delete", "/y"),
        ("middleware:remove", middleware),
    }

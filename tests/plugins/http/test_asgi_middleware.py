"""ASGI middleware of other frameworks, among ours."""

import asyncio
import functools
import gzip
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from litestar.middleware import DefineMiddleware
from starlette.middleware import Middleware as Described
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from veko import Kernel, Plugin, RouteError
from veko_plugins.http import Request, Response, Routes

pytestmark = pytest.mark.anyio


class Guest(Plugin):
    version = "1.0.0"

    def __init__(self, load: Callable[[Any], Any], name: str = "guest") -> None:
        self.name = name
        self._load = load

    def load(self, context: Any) -> Any:
        return self._load(context)


class Tagged:
    """Counts what it has seen, and says so in a header."""

    made = 0

    def __init__(self, app: Any, tag: str = "plain") -> None:
        type(self).made += 1
        self.app, self.tag, self.count = app, tag, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.count += 1

        async def tagging(message: Any) -> None:
            if message["type"] == "http.response.start":
                header = (b"x-tag", f"{self.tag} {self.count}".encode())
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        await self.app(scope, receive, tagging)


@pytest.fixture
async def kernel() -> AsyncIterator[Kernel]:
    async with Kernel() as kernel:
        await kernel.load(Routes("litestar"))
        yield kernel


@pytest.fixture
async def client(kernel: Kernel) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(kernel.use("http").asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("middleware", "tag"),
    [
        (Tagged, "plain"),
        (functools.partial(Tagged, tag="partial"), "partial"),
        (Described(Tagged, tag="described"), "described"),
        (DefineMiddleware(Tagged, tag="defined"), "defined"),
        (lambda app: Tagged(app, "factory"), "factory"),
    ],
    ids=["class", "partial", "starlette", "litestar", "factory"],
)
async def test_every_form_of_it(
    kernel: Kernel, client: httpx.AsyncClient, middleware: Any, tag: str
) -> None:
    def load(context: Any) -> None:
        context.add_middleware(middleware)
        context.add_route("GET", "/x", lambda: "x")

    await kernel.load(Guest(load))
    assert (await client.get("/x")).headers["x-tag"] == f"{tag} 1"
    assert (await client.get("/x")).headers["x-tag"] == f"{tag} 2"
    assert (await client.get("/nowhere")).headers["x-tag"] == f"{tag} 3"
    await kernel.unload("guest")
    assert "x-tag" not in (await client.get("/x")).headers


async def test_it_is_made_once_whatever_else_comes_and_goes(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    await kernel.load(Guest(lambda context: context.add_middleware(Tagged)))
    made = Tagged.made
    await client.get("/")

    async def nothing(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    other = Guest(lambda context: context.add_middleware(nothing), "other")
    await kernel.load(other)
    assert (await client.get("/")).headers["x-tag"] == "plain 2"
    await kernel.unload("other")
    assert (await client.get("/")).headers["x-tag"] == "plain 3"
    assert Tagged.made == made


async def test_priorities_hold_for_both_kinds(kernel: Kernel, client: httpx.AsyncClient) -> None:
    async def ours(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        response.headers["x-order"] = response.headers.get("x-order", "") + "o"
        return response

    class Theirs:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def ordering(message: Any) -> None:
                if message["type"] == "http.response.start":
                    headers = dict(message["headers"])
                    headers[b"x-order"] = headers.get(b"x-order", b"") + b"t"
                    message = {**message, "headers": list(headers.items())}
                await send(message)

            await self.app(scope, receive, ordering)

    def load(context: Any) -> None:
        context.add_middleware(ours, priority=5)
        context.add_middleware(Theirs, priority=20)
        context.add_route("GET", "/x", ours, Theirs, lambda: "x")

    await kernel.load(Guest(load))
    assert (await client.get("/x")).headers["x-order"] == "toot"


async def test_it_may_change_body_and_scope(kernel: Kernel, client: httpx.AsyncClient) -> None:
    seen: list[Any] = []

    class Changes:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def louder() -> Any:
                message = await receive()
                return {**message, "body": message.get("body", b"").upper()}

            headers = [*scope["headers"], (b"x-added", b"yes")]
            await self.app({**scope, "headers": headers, "mark": 7}, louder, send)

    async def handler(request: Request) -> str:
        seen.append((request, request.scope["mark"], request.headers["x-added"]))
        return (await request.body()).decode()

    def load(context: Any) -> None:
        context.hook("request:start", lambda r: seen.append((r, r.headers.get("x-added"))))
        context.hook("request:end", lambda r, _: seen.append(r))
        context.add_middleware(Changes)
        context.add_route("POST", "/x", handler)

    await kernel.load(Guest(load))
    assert (await client.post("/x", content=b"hello")).text == "HELLO"
    (first, before), (same, mark, added), last = seen
    assert first is same is last
    assert (before, mark, added) == (None, 7, "yes")


async def test_a_body_that_a_hook_has_read_comes_again(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    class Reads:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            message = await receive()
            scope["length"] = len(message["body"])

            async def again() -> Any:
                return message

            await self.app(scope, again, send)

    async def read(request: Request) -> None:
        await request.body()

    async def handler(request: Request) -> list[Any]:
        return [request.scope["length"], (await request.body()).decode()]

    def load(context: Any) -> None:
        context.hook("request:start", read)
        context.add_middleware(Reads)
        context.add_route("POST", "/x", handler)

    await kernel.load(Guest(load))
    assert (await client.post("/x", content=b"abc")).json() == [3, "abc"]


async def test_starlettes_own_work(kernel: Kernel, client: httpx.AsyncClient) -> None:
    def load(context: Any) -> None:
        context.add_middleware(functools.partial(CORSMiddleware, allow_origins=["http://a"]))
        context.add_middleware(functools.partial(GZipMiddleware, minimum_size=100))
        context.add_route("GET", "/long", lambda: "x" * 5_000)

    await kernel.load(Guest(load))
    asked = {"origin": "http://a", "access-control-request-method": "GET"}
    preflight = await client.options("/long", headers=asked)
    assert preflight.headers["access-control-allow-origin"] == "http://a"
    async with client.stream("GET", "/long") as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == b"x" * 5_000


async def test_a_stream_is_not_buffered(kernel: Kernel) -> None:
    taken: asyncio.Queue[bytes] = asyncio.Queue()
    go = asyncio.Event()

    async def chunks() -> AsyncIterator[str]:
        yield "one"
        await go.wait()
        yield "two"

    def load(context: Any) -> None:
        context.add_middleware(Tagged)
        context.add_route("GET", "/x", chunks)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            taken.put_nowait(message["body"])

    async def receive() -> Any:
        await asyncio.get_running_loop().create_future()

    await kernel.load(Guest(load))
    scope = {
        "type": "http", "method": "GET", "path": "/x", "headers": [], "query_string": b"",
    }  # fmt: skip
    serving = asyncio.create_task(kernel.use("http").asgi(scope, receive, send))
    assert await taken.get() == b"one"
    assert taken.empty()
    go.set()
    assert await taken.get() == b"two"
    await serving


async def test_it_may_answer_itself_and_what_it_raises_is_its_plugins_fault(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    class Door:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/closed":
                await Response("closed", status=403)(scope, receive, send)
            elif scope["path"] == "/broken":
                raise ValueError("door")
            else:
                await self.app(scope, receive, send)

    door = await kernel.load(Guest(lambda context: context.add_middleware(Door), "door"))

    def broken() -> None:
        raise ValueError("handler")

    def load(context: Any) -> None:
        for path in ("/closed", "/broken", "/open"):
            context.add_route("GET", path, broken)

    guest = await kernel.load(Guest(load))
    assert (await client.get("/closed")).status_code == 403
    assert (await client.get("/broken")).status_code == 500
    assert (door.error_count, guest.error_count) == (1, 0)
    assert (await client.get("/open")).status_code == 500
    assert (door.error_count, guest.error_count) == (1, 1)


@pytest.mark.parametrize("made", [lambda: None, lambda app, b, c: app, 7])
async def test_what_is_no_middleware_is_refused(kernel: Kernel, made: Any) -> None:
    with pytest.raises(RouteError, match="is not a middleware"):
        await kernel.load(Guest(lambda context: context.add_middleware(made)))


async def test_one_that_cannot_be_made_is_refused_where_it_is_added(kernel: Kernel) -> None:
    class Needs:
        def __init__(self, app: Any, secret: str) -> None: ...

    with pytest.raises(Exception, match=r"Needs raised .*secret"):
        await kernel.load(Guest(lambda context: context.add_middleware(Needs)))
    with pytest.raises(Exception, match="returned None, which is not an application"):
        await kernel.load(Guest(lambda context: context.add_middleware(lambda app: None)))

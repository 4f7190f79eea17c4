"""Starlette's own behind our table, and what plain handlers may take of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Router, WebSocketRoute
from starlette.routing import Route as StarletteRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from veko import Kernel, Plugin, VekoError
from veko_plugins.http import Request, Response, Routes

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
        await kernel.load(Routes("starlette"))
        yield kernel


@pytest.fixture
async def client(kernel: Kernel) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(kernel.use("http").asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def errors(kernel: Kernel) -> int:
    record = kernel.get("guest")
    assert record is not None
    return record.error_count


# -- plain handlers


async def test_plain_handlers_get_starlettes_request_and_answer_with_its_responses(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    seen: list[Any] = []

    async def measure(request: Request) -> None:
        seen.append(await request.body())

    async def echo(r: StarletteRequest, n: int = 1) -> Any:
        assert isinstance(r, StarletteRequest)
        return JSONResponse({"body": (await r.json()), "n": n, "q": r.query_params["n"]}, 202)

    async def stream(request: StarletteRequest) -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "a"
            yield "b"

        return StreamingResponse(chunks())

    def late() -> PlainTextResponse:
        return PlainTextResponse("late", background=BackgroundTask(seen.append, "after"))

    def load(context: Any) -> None:
        context.hook("request:start", measure)
        context.hook("request:end", measure)
        context.add_route("POST", "/echo", echo)
        context.add_route("GET", "/stream", stream)
        context.add_route("GET", "/late", late)
        context.add_route("GET", "/refuse", refuse)

    def refuse() -> None:
        raise HTTPException(418, "no coffee", headers={"x-pot": "1"})

    await kernel.load(Guest(load))
    answer = await client.post("/echo?n=3", json={"a": 1})
    assert (answer.status_code, answer.json()) == (202, {"body": {"a": 1}, "n": 3, "q": "3"})
    assert seen == [b'{"a":1}'] * 2
    assert (await client.get("/stream")).text == "ab"
    assert (await client.get("/late")).text == "late"
    assert "after" in seen
    answer = await client.get("/refuse")
    assert (answer.status_code, answer.headers["x-pot"]) == (418, "1")
    assert answer.json()["detail"] == "no coffee"
    assert errors(kernel) == 0


async def test_what_only_fastapi_could_make_is_refused_at_load(kernel: Kernel) -> None:
    def take(file: fastapi.UploadFile) -> None: ...

    with pytest.raises(VekoError, match="annotates 'file'"):
        await kernel.load(Guest(lambda context: context.add_route("POST", "/x", take)))


# -- Starlette's own


def hello(request: StarletteRequest) -> PlainTextResponse:
    return PlainTextResponse(f"{request.url.path} {request.path_params}")


def fail(request: StarletteRequest) -> None:
    raise LookupError("inside")


def denied(request: StarletteRequest) -> None:
    raise HTTPException(403, "not you", headers={"x-why": "because"})


class Things(HTTPEndpoint):
    async def get(self, request: StarletteRequest) -> JSONResponse:
        return JSONResponse({"at": str(request.url_for("things"))})


ROUTES = [
    StarletteRoute("/hello/{id:int}", hello),
    StarletteRoute("/hello/{name}", hello, methods=["GET", "POST"]),
    StarletteRoute("/things", Things, name="things"),
    StarletteRoute("/", hello),
    StarletteRoute("/fail", fail),
    StarletteRoute("/denied", denied),
    StarletteRoute("/files/{at:path}/raw", hello),
    StarletteRoute("/user-{id}", hello),
    Mount("/sub", routes=[StarletteRoute("/in", hello)]),
]


async def test_a_router_becomes_routes_of_our_table(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    created: list[tuple[str, str]] = []

    def load(context: Any) -> None:
        context.hook("route:create", lambda r: created.append((r.method, r.path)))
        context.add_routes(Router(ROUTES), path="/api")

    await kernel.load(Guest(load))
    assert ("GET", "/api/hello/{id:int}") in created
    assert ("POST", "/api/hello/{name}") in created
    assert ("WEBSOCKET", "/api/sub/{rest:path}") in created
    for path, text in [
        ("/api/hello/7", "/api/hello/7 {'id': 7}"),
        ("/api/hello/ann", "/api/hello/ann {'name': 'ann'}"),
        ("/api", "/api/ {}"),
        ("/api/", "/api/ {}"),
        ("/api/files/a/b/raw", "/api/files/a/b/raw {'at': 'a/b'}"),
        ("/api/user-5", "/api/user-5 {'id': '5'}"),
        ("/api/sub/in", "/api/sub/in {}"),
    ]:
        answer = await client.get(path)
        assert (answer.status_code, answer.text) == (200, text)
    assert (await client.get("/api/things")).json() == {"at": "http://test/api/things"}
    assert (await client.head("/api/hello/7")).text == ""
    answer = await client.delete("/api/hello/7")
    assert (answer.status_code, "POST" in answer.headers["allow"]) == (405, True)
    assert (await client.post("/api/hello/ann")).status_code == 200
    assert (await client.get("/api/sub/none")).status_code == 404
    assert errors(kernel) == 0
    answer = await client.get("/api/denied")
    assert (answer.status_code, answer.headers["x-why"]) == (403, "because")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "not you"
    assert errors(kernel) == 0
    answer = await client.get("/api/fail")
    assert (answer.status_code, "inside" in answer.text) == (500, False)
    assert answer.headers["content-type"] == "application/problem+json"
    assert errors(kernel) == 1
    await kernel.unload("guest")
    assert (await client.get("/api/hello/7")).status_code == 404


async def test_a_route_conflicts_with_somebody_elses(kernel: Kernel) -> None:
    await kernel.load(Guest(lambda context: context.add_route("GET", "/hello/{x}", lambda: "")))
    with pytest.raises(VekoError, match="is taken by the plugin 'guest'"):
        await kernel.load(Guest(lambda context: context.add_routes(ROUTES[1]), "other"))


@pytest.mark.parametrize("handler", [object(), 5, Host("x.org", PlainTextResponse("x"))])
async def test_a_handler_without_a_path_is_refused(kernel: Kernel, handler: object) -> None:
    with pytest.raises(VekoError, match=r"is not a route|has no path"):
        await kernel.load(Guest(lambda context: context.add_routes(handler)))


async def test_guards_stand_around_routes_and_applications(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    def guard(context: Any) -> None:
        async def check(request: Request, call_next: Any) -> Response:
            return await call_next(request) if "key" in request.query else Response(status=401)

        context.add_middleware(check)

    def load(context: Any) -> None:
        context.add_routes(ROUTES[0])
        context.add_routes(Starlette(routes=ROUTES), path="/app")

    await kernel.load(Guest(load))
    await kernel.load(Guest(guard, "guard"))
    for path in ("/hello/7", "/app/hello/7"):
        assert (await client.get(path)).status_code == 401
        assert (await client.get(f"{path}?key=1")).text == f"{path} {{'id': 7}}"


# -- applications


async def test_an_application_is_mounted_with_middleware_handlers_and_lifespan(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        told.append("up")
        yield {"pool": "open"}
        told.append("down")

    def own(request: StarletteRequest, error: Exception) -> JSONResponse:
        return JSONResponse({"own": str(error)}, 499)

    def state(request: StarletteRequest) -> PlainTextResponse:
        assert request.app is app
        return PlainTextResponse(request.state.pool)

    app = Starlette(
        routes=[*ROUTES, StarletteRoute("/state", state)],
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"])],
        exception_handlers={LookupError: own},
        lifespan=lifespan,
    )
    await kernel.load(Guest(lambda context: context.add_routes(app, path="/app")))
    assert told == ["up"]
    answer = await client.get("/app/state", headers={"origin": "http://x.org"})
    assert (answer.text, answer.headers["access-control-allow-origin"]) == ("open", "*")
    answer = await client.options("/app/state", headers={
        "origin": "http://x.org", "access-control-request-method": "GET",
    })  # fmt: skip
    assert answer.status_code == 200
    assert (await client.get("/app")).text == "/app/ {}"
    assert (await client.get("/app/fail")).json() == {"own": "inside"}
    answer = await client.get("/app/nowhere")
    assert (answer.status_code, answer.json()["title"]) == (404, "Not Found")
    answer = await client.get("/app/denied")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-why"] == "because"
    assert errors(kernel) == 0
    assert told == ["up"]
    await kernel.unload("guest")
    assert told == ["up", "down"]


async def test_a_lifespan_that_fails_fails_the_load(kernel: Kernel) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise ConnectionError("no database")
        yield

    with pytest.raises(VekoError, match="no database") as caught:
        await kernel.load(Guest(lambda c: c.add_routes(Starlette(lifespan=lifespan), path="/a")))
    assert "guest" in str(caught.value)
    assert kernel.use("http").asgi is not None


async def test_a_lifespan_that_hangs_is_bounded() -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    async with Kernel(timeout=0.05) as kernel:
        await kernel.load(Routes("starlette"))
        with pytest.raises(VekoError, match="did not start"):
            await kernel.load(Guest(lambda c: c.add_routes(Starlette(lifespan=lifespan))))


# -- sockets


async def talk(socket: StarletteWebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"{socket.url.path}: {text}")


async def forever(socket: StarletteWebSocket) -> None:
    await socket.accept()
    while True:
        await socket.receive_text()


@pytest.mark.parametrize(
    "add",
    [
        lambda context, talk: context.add_websocket("/ws", talk),
        lambda context, talk: context.add_routes(WebSocketRoute("/ws", talk)),
        lambda context, talk: context.add_routes(Starlette(routes=[WebSocketRoute("/ws", talk)])),
    ],
)
@pytest.mark.parametrize("handler", [talk, forever])
async def test_starlettes_sockets(kernel: Kernel, add: Any, handler: Any) -> None:
    await kernel.load(Guest(lambda context: add(context, handler)))
    sent: list[Any] = []
    coming: asyncio.Queue[Any] = asyncio.Queue()
    for message in (
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hi"},
        {"type": "websocket.disconnect", "code": 1001},
    ):
        coming.put_nowait(message)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "scheme": "ws"}
    await kernel.use("http").asgi(scope, coming.get, send)
    assert [message["type"] for message in sent][:1] == ["websocket.accept"]
    if handler is talk:
        assert sent[1]["text"] == "/ws: hi"
    assert errors(kernel) == 0

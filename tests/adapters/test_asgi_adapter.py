"""ASGI applications mounted as they are, in every adapter, and what is none."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from litestar import Litestar, get
from litestar import Request as LitestarRequest
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route as StarletteRoute

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


@pytest.fixture(params=["asgi", "litestar", "starlette"])
async def kernel(request: pytest.FixtureRequest) -> AsyncIterator[Kernel]:
    async with Kernel(timeout=0.5) as kernel:
        await kernel.load(Routes(request.param))
        yield kernel


@pytest.fixture
async def client(kernel: Kernel) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(kernel.use("http").asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Tell where it thinks that it is, and what the body was."""
    if scope["type"] != "http":
        raise NotImplementedError
    body = (await receive())["body"]
    told = f"{scope['method']} {scope['root_path']} {scope['path']} {body.decode()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (told[:3], told[3:]):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def test_an_application_answers_at_its_path_and_below(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    async def stamp(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        response.headers["x-stamp"] = "1"
        return response

    def load(context: Any) -> None:
        context.add_routes(plain, path="/app")
        context.add_routes(plain, path="/of/{name}/app")
        context.add_route("GET", "/app/mine", lambda: "mine")
        context.hook("request:start", read)

    async def read(request: Request) -> None:
        await request.body()

    await kernel.load(Guest(load))
    assert (await client.get("/app")).text == "GET /app /app/ "
    assert (await client.get("/app/")).text == "GET /app /app/ "
    assert (await client.post("/app/a/b", content=b"xyz")).text == "POST /app /app/a/b xyz"
    assert (await client.options("/app/a/")).text == "OPTIONS /app /app/a/ "
    assert (await client.get("/of/ann/app/a")).text == "GET /of/ann/app /of/ann/app/a "
    assert (await client.get("/app/mine")).text == "mine"
    assert (await client.get("/other")).status_code == 404
    await kernel.load(Guest(lambda context: context.add_middleware(stamp), "stamp"))
    answer = await client.get("/app/a")
    assert (answer.text, answer.headers["x-stamp"]) == ("GET /app /app/a ", "1")
    await kernel.unload("guest")
    assert (await client.get("/app")).status_code == 404


async def test_the_root_too_and_below_another_root(kernel: Kernel) -> None:
    await kernel.load(Guest(lambda context: context.add_routes(plain)))
    for root, path, told in [("", "/a", "GET  /a "), ("/up", "/up/a", "GET /up /up/a ")]:
        transport = httpx.ASGITransport(kernel.use("http").asgi, root_path=root)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get(path)).text == told


async def test_applications_of_frameworks(kernel: Kernel, client: httpx.AsyncClient) -> None:
    told: list[str] = []

    @get("/{id:int}")
    async def one(request: LitestarRequest) -> list[Any]:
        return [request.path_params["id"], request.scope["path"]]

    def two(request: StarletteRequest) -> JSONResponse:
        return JSONResponse([request.path_params["id"], str(request.url)])

    litestar = Litestar(
        [one],
        on_startup=[lambda: told.append("up")],
        on_shutdown=[lambda: told.append("down")],
        openapi_config=None,
        logging_config=None,
    )
    starlette = Starlette(routes=[StarletteRoute("/{id:int}", two)])

    def load(context: Any) -> None:
        context.add_routes(litestar, path="/one")
        context.add_routes(starlette, path="/two")

    await kernel.load(Guest(load))
    assert told == ["up"]
    assert (await client.get("/one/3")).json()[0] == 3
    assert (await client.get("/two/3")).json() == [3, "http://test/two/3"]
    await kernel.unload("guest")
    assert told == ["up", "down"]


@pytest.mark.parametrize("handler", [object(), 5, lambda request: None, "app"])
async def test_what_is_no_application_is_refused(kernel: Kernel, handler: object) -> None:
    with pytest.raises(VekoError, match=r"is not an? "):
        await kernel.load(Guest(lambda context: context.add_routes(handler)))


async def test_two_applications_at_one_path_conflict(kernel: Kernel) -> None:
    await kernel.load(Guest(lambda context: context.add_routes(plain, path="/app")))
    with pytest.raises(VekoError, match="is taken by the plugin 'guest'"):
        await kernel.load(Guest(lambda context: context.add_routes(plain, path="/app"), "other"))


@pytest.mark.parametrize("how", ["says so", "hangs"])
async def test_an_application_that_does_not_start_fails_the_load(kernel: Kernel, how: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if how == "says so":
            await send({"type": "lifespan.startup.failed", "message": "no way"})
        else:
            await asyncio.Event().wait()

    with pytest.raises(VekoError, match="no way" if how == "says so" else "did not start"):
        await kernel.load(Guest(lambda context: context.add_routes(app, path="/app")))
    await kernel.load(Guest(lambda context: context.add_routes(plain, path="/app")))


async def test_an_application_that_raises_is_its_plugins_fault(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("inside")

    record = await kernel.load(Guest(lambda context: context.add_routes(app, path="/app")))
    answer = await client.get("/app")
    assert (answer.status_code, "inside" in answer.text) == (500, False)
    assert record.error_count == 1

"""Litestar's own handlers behind our table, and what plain handlers may take of it."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from litestar import Controller, Litestar, Router, get, post
from litestar import Request as LitestarRequest
from litestar import Response as LitestarResponse
from litestar.background_tasks import BackgroundTask
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromHeader, FromPath, FromQuery, JSONBody
from litestar.response import Redirect, Stream

from veko import Kernel, OptionError, Plugin, RouteError
from veko_adapters.litestar import LitestarAdapter
from veko_plugins.http import Request, Response, Route, Routes

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
        await kernel.load(Routes("litestar"))
        yield kernel


@pytest.fixture
async def client(kernel: Kernel) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(kernel.use("http").asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def needs_key(connection: ASGIConnection, _: BaseRouteHandler) -> None:
    if "x-key" not in connection.headers:
        raise NotAuthorizedException("no key")


def conflict(request: LitestarRequest, error: Exception) -> LitestarResponse:
    return LitestarResponse({"handled": str(error)}, status_code=409)


async def provided() -> int:
    return 42


class Things(Controller):
    path = "/things"
    dependencies = {"number": Provide(provided)}
    exception_handlers = {KeyError: conflict}

    @get("/{thing_id:int}")
    async def one(self, thing_id: FromPath[int], number: NamedDependency[int]) -> dict[str, int]:
        return {"id": thing_id, "number": number}

    @post("/")
    async def make(self, data: JSONBody[dict[str, int]], request: LitestarRequest) -> dict:
        ours: Request = request.scope["veko.request"]  # type: ignore[typeddict-item]
        return {"data": data, "seen": ours.state.get("length")}

    @get("/guarded", guards=[needs_key])
    async def guarded(self) -> str:
        return "in"

    @get("/fails/{how:str}")
    async def fails(self, how: FromPath[str]) -> None:
        raise KeyError(how) if how == "handled" else ValueError(how)

    @get("/files/{rest:path}")
    async def files(self, rest: FromPath[str], q: FromQuery[int]) -> list:
        return [rest, q]


@get("/stream")
async def stream() -> Stream:
    async def chunks() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    return Stream(chunks())


async def test_a_controller_runs_with_all_it_is(kernel: Kernel, client: httpx.AsyncClient) -> None:
    async def measure(request: Request) -> None:
        request.state["length"] = len(await request.body())

    def load(context: Any) -> None:
        context.add_routes(Things, path="/api")
        context.hook("request:start", measure)

    await kernel.load(Guest(load))
    answer = await client.get("/api/things/7")
    assert answer.json() == {"id": 7, "number": 42}
    answer = await client.post("/api/things", json={"a": 1})
    assert (answer.status_code, answer.json()) == (201, {"data": {"a": 1}, "seen": 7})
    assert (await client.head("/api/things/7")).status_code == 200
    assert (await client.get("/api/things/guarded", headers={"x-key": "1"})).text == "in"
    answer = await client.get("/api/things/guarded")
    assert (answer.status_code, answer.json()["detail"]) == (401, "no key")
    answer = await client.get("/api/things/files/a/b?q=1")
    assert answer.json() == ["/a/b", 1]
    answer = await client.get("/api/things/files/a/b?q=x")
    assert answer.status_code == 400
    assert [fault["name"] for fault in answer.json()["errors"]] == ["q"]
    answer = await client.get("/api/things/fails/handled")
    assert (answer.status_code, answer.json()) == (409, {"handled": "'handled'"})
    record = kernel.get("guest")
    assert record is not None
    assert record.error_count == 0
    assert (await client.get("/api/things/fails/else")).status_code == 500
    assert record.error_count == 1
    await kernel.toggle("guest", False)
    assert (await client.get("/api/things/7")).status_code == 404
    await kernel.toggle("guest", True)
    assert (await client.get("/api/things/7")).status_code == 200


async def test_routers_and_handlers_too_and_middleware_around_them(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    seen: list[Any] = []

    async def middleware(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        seen.append((request.path, response.body))
        response.headers["x-mine"] = "1"
        return response

    @get("/late", background=None)
    async def late() -> LitestarResponse[str]:
        async def after() -> None:
            seen.append("after")

        return LitestarResponse("late", background=BackgroundTask(after))

    def load(context: Any) -> None:
        context.add_routes(Router("/r", route_handlers=[stream, late]), stream)
        context.add_middleware(middleware)

    await kernel.load(Guest(load))
    for path in ("/r/stream", "/stream"):
        answer = await client.get(path)
        assert (answer.text, answer.headers["x-mine"]) == ("ab", "1")
    answer = await client.get("/r/late")
    assert (answer.text, answer.headers["x-mine"]) == ("late", "1")
    assert seen == [("/r/stream", None), ("/stream", None), ("/r/late", b"late"), "after"]


async def test_without_middleware_litestar_sends_by_itself(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    def load(context: Any) -> None:
        context.add_routes(stream)
        context.hook("response:start", lambda a, r: a.headers.__setitem__("x-hook", "1"))

    await kernel.load(Guest(load))
    answer = await client.get("/stream")
    assert (answer.text, answer.headers["x-hook"]) == ("ab", "1")
    replace = lambda a, r: Response("other")  # noqa: E731
    await kernel.load(Guest(lambda context: context.hook("response:start", replace), "other"))
    assert (await client.get("/stream")).text == "other"


async def test_plain_handlers_may_use_litestars_parameters_and_responses(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    async def tell(x_name: FromHeader[str], n: int = 1) -> Any:
        return {"name": x_name, "n": n}

    def load(context: Any) -> None:
        context.add_route("GET", "/tell", tell)
        context.add_route("GET", "/away", lambda request: Redirect("/tell", status_code=307))
        context.add_route("GET", "/made", lambda: LitestarResponse({"a": 1}, status_code=202))

    await kernel.load(Guest(load))
    answer = await client.get("/tell?n=2", headers={"x_name": "ann"})
    assert answer.json() == {"name": "ann", "n": 2}
    assert (await client.get("/tell")).status_code == 400
    answer = await client.get("/away")
    assert (answer.status_code, answer.headers["location"]) == (307, "/tell")
    answer = await client.get("/made")
    assert (answer.status_code, answer.json()) == (202, {"a": 1})


async def test_what_litestar_does_not_know_is_refused(kernel: Kernel) -> None:
    with pytest.raises(Exception, match="not a route handler, controller or router") as caught:
        await kernel.load(Guest(lambda context: context.add_routes(object())))
    assert "guest" in str(caught.value)


async def test_our_application_mounts_into_litestar(kernel: Kernel) -> None:
    from litestar.handlers import asgi

    await kernel.load(
        Guest(lambda context: context.add_route("GET", "/x/{id:int}", lambda r: [r.path, r.url]))
    )
    mounted: Any = asgi("/app", is_mount=True, copy_scope=True)(kernel.use("http").asgi)
    app: Any = Litestar([mounted], openapi_config=None, logging_config=None)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        answer = await client.get("/app/x/3")
    assert answer.status_code == 200


async def test_a_request_only_handler_is_not_compiled_by_litestar(kernel: Kernel) -> None:
    seen: list[Any] = []
    await kernel.load(Guest(seen.append))
    context = seen[0]
    endpoints = LitestarAdapter().compile(
        context, [Route("GET", "/x", lambda request: None), Route("GET", "/y", lambda: None)]
    )
    assert all(hasattr(endpoint, "answer") for endpoint in endpoints)
    with pytest.raises(RouteError, match="no signature"):
        LitestarAdapter().compile(context, [Route("GET", "/x", type)])


# -- serving


async def test_a_port_that_is_taken_is_an_error_that_says_so(kernel: Kernel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"cannot listen on 127.0.0.1:{port}"):
            await kernel.use("http").serve(port=port)


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_requests_under_way_finish_before_serving_ends(kernel: Kernel, how: str) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> str:
        entered.set()
        await go.wait()
        return "done"

    await kernel.load(Guest(lambda context: context.add_route("GET", "/slow", slow)))
    urls: asyncio.Queue[str] = asyncio.Queue()
    stop = asyncio.Event()
    serving = asyncio.create_task(
        kernel.use("http").serve(
            port=0, started=lambda host, port: urls.put_nowait(f"http://{host}:{port}"), stop=stop
        )
    )
    async with httpx.AsyncClient(base_url=await urls.get()) as client:
        request = asyncio.create_task(client.get("/slow"))
        await entered.wait()
        stop.set() if how == "stop" else serving.cancel()
        go.set()
        assert (await request).text == "done"
    if how == "stop":
        await serving
    else:
        with pytest.raises(asyncio.CancelledError):
            await serving


async def test_draining_is_bounded(kernel: Kernel) -> None:
    entered = asyncio.Event()

    async def forever(request: Request) -> None:
        entered.set()
        await asyncio.Event().wait()

    await kernel.load(Guest(lambda context: context.add_route("GET", "/x", forever)))
    urls: asyncio.Queue[str] = asyncio.Queue()
    stop = asyncio.Event()
    serving = asyncio.create_task(
        kernel.use("http").serve(
            port=0,
            started=lambda host, port: urls.put_nowait(f"http://{host}:{port}"),
            stop=stop,
            drain_timeout=0.05,
        )
    )
    async with httpx.AsyncClient(base_url=await urls.get()) as client:
        request = asyncio.create_task(client.get("/x"))
        await entered.wait()
        stop.set()
        async with asyncio.timeout(5):
            await serving
        answer = (await asyncio.gather(request, return_exceptions=True))[0]
    if isinstance(answer, httpx.Response):
        assert answer.status_code == 500
    else:
        assert isinstance(answer, httpx.RemoteProtocolError)


async def test_where_a_handler_runs_is_for_litestar_to_say_of_its_own(
    kernel: Kernel, client: httpx.AsyncClient
) -> None:
    def here() -> bool:
        return threading.current_thread() is threading.main_thread()

    def ours(number: FromQuery[int]) -> bool:  # its arguments are Litestar's, its thread is ours
        return here()

    def load(context: Any) -> None:
        context.add_routes(
            get("/loop", sync_to_thread=False)(here), get("/thread", sync_to_thread=True)(here)
        )
        context.add_route("GET", "/ours", ours)
        context.add_route("GET", "/ours/loop", ours, sync_to_thread=False)

    await kernel.load(Guest(load))
    assert (await client.get("/loop")).json() is True
    assert (await client.get("/thread")).json() is False
    assert (await client.get("/ours?number=1")).json() is False
    assert (await client.get("/ours/loop?number=1")).json() is True

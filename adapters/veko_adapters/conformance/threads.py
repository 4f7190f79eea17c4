"""`def` handlers: they run in threads, and behave there as on the event loop."""

import asyncio
import contextvars
import threading
from functools import partial, wraps
from typing import Any

import anyio.to_thread
import msgspec
import pytest

from veko import RouteError
from veko_plugins.http import HTTPError, Request, Response, Route, WebSocket

from ._site import Site

pytestmark = pytest.mark.anyio

_WAIT = 5.0
user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


class Item(msgspec.Struct):
    name: str


def here() -> bool:
    return threading.current_thread() is threading.main_thread()


async def test_def_handlers_run_side_by_side_while_the_loop_answers(site: Site) -> None:
    all_there, done = threading.Barrier(3), threading.Event()

    def slow() -> bool:
        all_there.wait(_WAIT)
        done.wait(_WAIT)
        return here()

    def load(context: Any) -> None:
        async def quick() -> str:
            done.set()
            return "quick"

        context.add_route("GET", "/slow", slow)
        context.add_route("GET", "/quick", quick)

    async with site.plugin(load):
        waiting = [asyncio.ensure_future(site.client.get("/slow")) for _ in range(2)]
        await anyio.to_thread.run_sync(all_there.wait, _WAIT)
        assert (await site.client.get("/quick")).text == "quick"
        assert [(await one).json() for one in waiting] == [False, False]


async def test_a_quick_def_handler_may_run_on_the_loop(site: Site) -> None:
    def load(context: Any) -> None:
        context.add_route("GET", "/loop", here, sync_to_thread=False)
        context.add_route("GET", "/thread", here)

    async with site.plugin(load):
        assert (await site.client.get("/loop")).json() is True
        assert (await site.client.get("/thread")).json() is False


async def test_a_hook_may_choose_where_a_handler_runs(site: Site) -> None:
    def load(context: Any) -> None:
        def choose(route: Route) -> Route:
            return msgspec.structs.replace(route, sync_to_thread=False)

        context.hook("route:create", choose)
        context.add_route("GET", "/x", here)

    async with site.plugin(load):
        assert (await site.client.get("/x")).json() is True


async def test_a_thread_has_the_request_and_its_arguments(site: Site) -> None:
    async def name_the_user(request: Request, call_next: Any) -> Response:
        user.set("ada")
        request.state["seen"] = True
        response: Response = await call_next(request)
        return response

    def handler(request: Request, id: int, data: Item, limit: int = 3) -> Any:
        return [request.method, request.state["seen"], id, data.name, limit, user.get(), here()]

    async with site.route("POST", "/x/{id:int}", name_the_user, handler) as client:
        answer = await client.post("/x/7?limit=2", json={"name": "tea"})
        assert answer.json() == ["POST", True, 7, "tea", 2, "ada", False]
        assert (await client.post("/x/7", json={"name": 3})).status_code == 400


async def test_every_kind_of_function_may_be_a_handler(site: Site) -> None:
    class Callable:
        def __call__(self, q: str) -> list[Any]:
            return [q, here()]

        def method(self, q: str) -> list[Any]:
            return [q, here()]

    def decorated(fn: Any) -> Any:
        @wraps(fn)
        def around(*args: Any, **named: Any) -> Any:
            return fn(*args, **named)

        return around

    @decorated
    async def inner(q: str) -> list[Any]:
        return [q, here()]

    def bound(first: str, q: str) -> list[Any]:
        return [first + q, here()]

    def load(context: Any) -> None:
        context.add_route("GET", "/object", Callable())
        context.add_route("GET", "/method", Callable().method)
        context.add_route("GET", "/partial", partial(bound, "x"))
        context.add_route("GET", "/lambda", lambda request: [request.query["q"], here()])
        context.add_route("GET", "/coroutine", lambda request: inner(request.query["q"]))
        context.add_route("GET", "/decorated", inner)

    async with site.plugin(load):
        for path in ("object", "method", "lambda"):
            assert (await site.client.get(f"/{path}?q=a")).json() == ["a", False], path
        assert (await site.client.get("/partial?q=a")).json() == ["xa", False]
        for path in ("coroutine", "decorated"):
            assert (await site.client.get(f"/{path}?q=a")).json() == ["a", True], path


async def test_what_a_thread_returns_is_sent_as_from_the_loop(site: Site) -> None:
    async def chunks() -> Any:
        for number in range(3):
            yield f"{number};"

    def load(context: Any) -> None:
        context.add_route("GET", "/stream", lambda: chunks())
        context.add_route("GET", "/response", lambda: Response("made", 201))
        context.add_route("GET", "/none", lambda: None)

    async with site.plugin(load):
        assert (await site.client.get("/stream")).text == "0;1;2;"
        answer = await site.client.get("/response")
        assert (answer.status_code, answer.text) == (201, "made")
        assert (await site.client.get("/none")).status_code == 204


@pytest.mark.parametrize(
    ("error", "status", "counted"),
    [
        (HTTPError(404, "no such thing"), 404, 0),
        (KeyError("x"), 500, 1),
        (StopIteration(), 500, 1),
        (SystemExit(3), 500, 1),
    ],
    ids=["refusal", "failure", "StopIteration", "SystemExit"],
)
async def test_what_a_thread_raises_is_its_plugins(
    site: Site, error: BaseException, status: int, counted: int
) -> None:
    def handler() -> None:
        raise error

    async with site.route("GET", "/x", handler) as client:
        assert (await client.get("/x")).status_code == status
        assert site.errors() == counted


async def test_unloading_waits_for_a_thread(site: Site) -> None:
    entered, go, log = threading.Event(), threading.Event(), list[str]()

    def handler() -> str:
        entered.set()
        go.wait(_WAIT)
        log.append("answered")
        return "done"

    async with site.plugin(lambda context: context.add_route("GET", "/x", handler)) as record:
        waiting = asyncio.ensure_future(site.client.get("/x"))
        await anyio.to_thread.run_sync(entered.wait, _WAIT)
        unloading = asyncio.ensure_future(site.kernel.unload("guest"))
        await asyncio.sleep(0.05)
        assert not unloading.done()
        go.set()
        await unloading
        assert log == ["answered"]
        assert (await waiting).text == "done"
        assert record.state == "unloaded"


async def test_middleware_and_websockets_are_async_only(site: Site) -> None:
    def middleware(request: Request, call_next: Any) -> Any:
        return call_next(request)

    def socket(socket: WebSocket) -> None: ...

    for load, name in (
        (lambda context: context.add_middleware(middleware), "middleware"),
        (lambda context: context.add_route("GET", "/x", middleware, here), "middleware"),
        (lambda context: context.add_websocket("/x", socket), "socket"),
    ):
        with pytest.raises(RouteError, match=rf"{name}.* is not `async def`"):
            async with site.plugin(load):
                pass

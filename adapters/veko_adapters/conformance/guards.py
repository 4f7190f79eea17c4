"""Guards fail closed: whatever decides about a request refuses when it fails or takes too long."""

import asyncio
import hmac
from collections.abc import Callable
from typing import Any

import pytest

from veko import HookError, HookTimeout, LoadError, RefusedError, VekoError
from veko_plugins.http import HTTPError, Request, Response, WebSocket

from ._site import Site
from ._wire import request, wire
from .sockets import closing, dial, echo, refusal

pytestmark = pytest.mark.anyio

Failure = Callable[..., Any]


def raises(*args: object) -> None:
    raise TypeError("a secret")


async def raises_later(*args: object) -> None:
    await asyncio.sleep(0)
    raise TypeError("a secret")


async def hangs(*args: object) -> None:
    await asyncio.sleep(60)


async def swallows_its_limit(*args: object) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return


async def is_cancelled(*args: object) -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


def exits(*args: object) -> None:
    raise SystemExit(3)


async def closes(*args: object) -> None:
    raise GeneratorExit


def groups(*args: object) -> None:
    raise ExceptionGroup("several", [HTTPError(403), ValueError()])


FAILURES = [
    (raises, TypeError, 500),
    (raises_later, TypeError, 500),
    (hangs, HookTimeout, 503),
    (is_cancelled, HookError, 500),
    (exits, HookError, 500),
    (closes, HookError, 500),
    (groups, ExceptionGroup, 500),
]
"""How a guard fails, the error that is reported, and the status of the refusal."""

failures = pytest.mark.parametrize(("failure", "kind", "status"), FAILURES)


def reports(site: Site) -> tuple[list[tuple[Any, type[BaseException]]], Any]:
    """Return a list of the errors that are reported, and what ends filling it."""
    seen: list[tuple[Any, type[BaseException]]] = []
    handle = site.kernel.bus.on(
        "error:handle", lambda error, origin: seen.append((origin.plugin, type(error)))
    )
    return seen, handle


@failures
@pytest.mark.parametrize("event", ["request:start", "request:*"])
async def test_a_hook_that_fails_refuses_the_request(
    site: Site, failure: Failure, kind: type[Exception], status: int, event: str
) -> None:
    served: list[str] = []

    def guard(context: Any) -> None:
        context.hook(event, failure, priority=100, timeout=0.01)

    def load(context: Any) -> None:
        context.add_route("GET", "/x", lambda request: served.append("handler"))
        context.hook("request:start", lambda r: served.append("later"), observe=True)

    seen, handle = reports(site)
    async with site.plugin(load), site.plugin(guard, "guard") as record:
        answer = await site.client.get("/x")
        if event == "request:start":  # the pattern hears the end of the request too
            assert seen == [("guard", kind)]
            assert record.error_count == 1
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert "secret" not in answer.text
        assert (status == 503) is ("retry-after" in answer.headers)
        assert served == []
        assert site.errors() == 0
    handle.cancel()


async def test_a_secret_that_is_no_ascii_is_refused(site: Site) -> None:
    """`hmac.compare_digest` raises a TypeError for it."""

    def check(request: Request) -> None:
        if not hmac.compare_digest(request.headers.get("authorization", ""), "Bearer right"):
            raise HTTPError(401)

    def guard(context: Any) -> None:
        context.hook("request:start", check)

    async with site.route("GET", "/x", lambda: "served"), site.plugin(guard, "guard") as record:
        for token, status in (("right", 200), ("wrong", 401), ("\xe9", 500), ("right", 200)):
            async with wire(site.url) as peer:
                answer = await peer.ask(request("GET", "/x", f"authorization: Bearer {token}"))
            assert answer is not None
            assert (answer.status, b"served" in answer.body) == (
                status,
                status == 200,
            )
        assert record.error_count == 1
        assert site.errors() == 0


@failures
async def test_the_failure_of_a_hook_that_observes_refuses_nothing(
    site: Site, failure: Failure, kind: type[Exception], status: int
) -> None:
    def watch(context: Any) -> None:
        context.hook("request:start", failure, observe=True, timeout=0.01)
        context.hook("websocket:connect", failure, observe=True, timeout=0.01)

    def load(context: Any) -> None:
        context.add_route("GET", "/x", lambda: "served")
        context.add_websocket("/echo", echo)

    seen, handle = reports(site)
    async with site.plugin(load), site.plugin(watch, "watch") as record:
        assert (await site.client.get("/x")).text == "served"
        async with dial(site, "/echo") as peer:
            await peer.send("x")
            assert await peer.recv() == "x"
        assert seen == [("watch", kind)] * 2
        assert record.error_count == 2
    handle.cancel()


async def test_what_a_hook_that_observes_answers_is_ignored(site: Site) -> None:
    def watch(context: Any) -> None:
        context.hook("request:start", lambda r: Response("mine", 203), observe=True)
        context.hook("request:start", _refuse, observe=True)

    async with site.route("GET", "/x", lambda: "served"), site.plugin(watch, "watch"):
        assert (await site.client.get("/x")).text == "served"


def _refuse(request: Request) -> None:
    raise HTTPError(403)


@failures
async def test_a_middleware_that_fails_refuses_the_request(
    site: Site, failure: Failure, kind: type[Exception], status: int
) -> None:
    if failure is hangs:
        pytest.skip("a middleware has no time limit")
    served: list[str] = []

    async def middleware(request: Request, call_next: Any) -> Any:
        answer = failure()
        if answer is not None:
            await answer
        return await call_next(request)

    def handler() -> str:
        served.append("handler")
        return "served"

    def guard(context: Any) -> None:
        context.add_middleware(middleware)

    async with site.route("GET", "/x", handler), site.plugin(guard, "guard"):
        async with wire(site.url) as peer:
            answer = await peer.ask(request("GET", "/x", "connection: close"))
        assert answer is None or answer.status >= 500
        assert served == []
        assert site.errors() == 0


@failures
async def test_a_route_hook_that_fails_refuses_the_route(
    site: Site, failure: Failure, kind: type[Exception], status: int
) -> None:
    def guard(context: Any) -> None:
        context.hook("route:create", failure, timeout=0.01)

    async with site.plugin(guard, "guard"):
        with pytest.raises((LoadError, RefusedError, VekoError)):
            async with site.route("GET", "/x", lambda: "served"):
                pass
        assert (await site.client.get("/x")).status_code == 404


@failures
async def test_a_hook_that_fails_refuses_the_handshake(
    site: Site, failure: Failure, kind: type[Exception], status: int
) -> None:
    served: list[str] = []

    async def handler(socket: WebSocket) -> None:
        served.append("handler")

    def guard(context: Any) -> None:
        context.hook("websocket:connect", failure, timeout=0.01)

    def load(context: Any) -> None:
        context.add_websocket("/x", handler)

    seen, handle = reports(site)
    async with site.plugin(load), site.plugin(guard, "guard") as record:
        code, body = await refusal(site, "/x")
        assert code == status
        assert b"secret" not in body
        assert seen == [("guard", kind)]
        assert record.error_count == 1
        assert site.errors() == 0
    handle.cancel()
    assert served == []


async def test_a_hook_that_accepts_and_then_fails_closes_the_socket(site: Site) -> None:
    served: list[str] = []

    async def handler(socket: WebSocket) -> None:
        served.append("handler")

    async def check(socket: WebSocket) -> None:
        await socket.accept()
        raise TypeError("a secret")

    def guard(context: Any) -> None:
        context.hook("websocket:connect", check)

    def load(context: Any) -> None:
        context.add_websocket("/x", handler)

    async with site.plugin(load), site.plugin(guard, "guard") as record:
        async with dial(site, "/x") as peer:
            assert await closing(peer) == (1011, "")
        assert record.error_count == 1
        assert site.errors() == 0
    assert served == []


async def test_request_error_may_answer_for_a_guard_that_fails(site: Site) -> None:
    def guard(context: Any) -> None:
        context.hook("request:start", raises)
        context.hook("request:error", lambda e, r: Response(type(e).__name__, 500))

    async with site.route("GET", "/x", lambda: "served"), site.plugin(guard, "guard"):
        answer = await site.client.get("/x")
        assert (answer.status_code, answer.text) == (500, "TypeError")


async def test_a_guard_that_swallows_its_limit_refuses(site: Site) -> None:
    def guard(context: Any) -> None:
        context.hook("request:start", swallows_its_limit, timeout=0.01)

    async with site.route("GET", "/x", lambda: "served"), site.plugin(guard, "guard"):
        assert (await site.client.get("/x")).status_code == 503

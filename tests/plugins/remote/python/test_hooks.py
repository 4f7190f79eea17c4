"""Hooks of a Python plugin in a worker, as the host's bus calls them."""

from __future__ import annotations

from typing import Any

import pytest

from veko_plugins.http import HTTPError
from veko_plugins.remote.python.errors import across
from veko_plugins.remote.python.kinds import Marked

from .conftest import Start, request


def response(status: int = 200, headers: Any = (), body: Any = b"ok") -> Marked:
    return Marked("response", {"status": status, "headers": list(headers), "body": body})


async def test_a_hook_answers_with_its_value_and_what_it_changed(start: Start) -> None:
    host = await start("""
        from veko import Stop
        from veko_plugins import HTTPError, Response

        async def begin(request):
            if request.path == "/no":
                raise HTTPError(403, "no")
            if request.path == "/cached":
                return Response("cached", 203)
            request.state["began"] = request.headers["host"]

        def look(response, request):
            response.headers["x-seen"] = request.state["began"]
            response.body = response.body + b"!"

        def paid(amount):
            if amount > 100:
                raise Stop(100)
            return amount + 1

        async def same(error, request):
            return error

        def load(context):
            context.hook("request:start", begin, priority=30, timeout=2.0)
            context.hook("response:start", look)
            context.hook("order:paid", paid, observe=True)
            context.hook("request:error", same)
            context.hook("plugin:*", lambda name: None)
    """)
    options = host.more["hook", "request:start"][3]
    assert options == {"priority": 30, "timeout": 2.0, "observe": False}
    assert host.more["hook", "order:paid"][3]["observe"] is True
    assert [key for verb, key in host.order if verb == "hook"][-1] == "plugin:*"

    answer = await host.run("hook", "request:start", request("/"))
    assert answer == [None, [{"state": {"began": "test"}}], False]
    value, changes, _ = await host.run("hook", "request:start", request("/cached"))
    assert (value["status"], value["body"], changes) == (203, b"cached", None)
    with pytest.raises(HTTPError, match="no"):
        await host.run("hook", "request:start", request("/no"))

    seen = request("/", state={"began": "now"})
    value, changes, _ = await host.run("hook", "response:start", response(), seen)
    assert value is None
    assert changes[0] == {"status": 200, "headers": [["x-seen", "now"]], "body": b"ok!"}
    assert changes[1] == {"state": {"began": "now"}}

    assert await host.run("hook", "order:paid", 7, "more") == [8, None, False]
    assert await host.run("hook", "order:paid", 700) == [100, None, True]
    assert await host.run("hook", "request:error", ValueError("x"), request()) == [
        None,
        None,
        False,
    ]


async def test_a_guard_puts_a_middleware_before_routes_of_others(start: Start) -> None:
    host = await start("""
        from msgspec.structs import replace
        from veko_plugins import HTTPError

        async def check(request, call_next):
            if "authorization" not in request.headers:
                raise HTTPError(401)
            return await call_next(request)

        async def show(request):
            return "shown"

        def guard(route):
            if route.handler is show:
                return replace(route, path="/moved")
            if route.path.startswith("/private"):
                return replace(route, middlewares=(check, *route.middlewares))

        def load(context):
            context.hook("route:create", guard)
            context.add_route("GET", "/show", show)
    """)

    async def handler(sent: Any) -> Any:
        return {"status": 200, "headers": [], "body": b"in"}

    async def other(sent: Any, following: Any) -> Any: ...

    def route(path: str, handler: Any = handler) -> Marked:
        return Marked("route", {
            "method": "GET", "path": path, "plugin": "other", "sync_to_thread": True,
            "handler": handler, "middlewares": [other],
        })  # fmt: skip

    assert await host.run("hook", "route:create", route("/open")) == [None, None, False]
    made, _, _ = await host.run("hook", "route:create", route("/private"))
    check, last = made["middlewares"]
    # What came from the host is itself again there; the plugin's own is called as a middleware.
    assert (made["handler"], last, made["path"]) == (handler, other, "/private")
    with pytest.raises(HTTPError) as refused:
        await across(check(request("/private"), handler))
    assert refused.value.status == 401
    headers = {"authorization": "me"}
    answer = await check(request("/private", headers=headers), handler)
    assert answer[2] == b"in"
    # Its own handler is the function itself in the worker, and the same one for the host.
    own = host.functions["add_route", ("GET", "/show")]
    made, _, _ = await host.run("hook", "route:create", route("/show", own))
    assert (made["handler"], made["path"]) == (own, "/moved")


async def test_the_workers_own_bus_calls_none_of_its_hooks(start: Start) -> None:
    host = await start("""
        calls = []

        def load(context):
            context.hook("**", lambda *args: calls.append(args))
            context.hook("log", lambda record: calls.append(record.message))
            context.hook("plugin:loaded", lambda *args: calls.append(args))
            context.log("info", "hello")
            context.add_command("calls", lambda: [str(one) for one in calls])
    """)
    assert await host.run("add_command", "calls", [], {}) == []
    record = {"type": "info", "message": "hello", "details": None, "plugin": "other", "fields": {},
              "timestamp": "2026-01-01T00:00:00Z"}  # fmt: skip
    await host.run("hook", "log", record)
    assert await host.run("add_command", "calls", [], {}) == ["hello"]


async def test_a_hook_on_errors_gets_the_error_and_where_it_came_from(start: Start) -> None:
    host = await start("""
        def handle(error, origin):
            return [type(error).__name__, origin.plugin, origin.part, origin.subject.path]
        def load(context):
            context.hook("error:handle", handle)
    """)
    origin = {"plugin": "other", "event": None, "handler": "show", "part": "GET /x",
              "counts": True, "subject": request("/x")}  # fmt: skip
    value, _, _ = await host.run("hook", "error:handle", LookupError("lost"), origin)
    assert value == ["LookupError", "other", "GET /x", "/x"]

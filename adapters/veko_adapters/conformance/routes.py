"""Routes, guards and middleware that are added and removed while requests are served."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
import pytest

from veko import ConflictError, VekoError
from veko_plugins.http import CallNext, HTTPError, Request, Response, Route

from ._site import Site

pytestmark = pytest.mark.anyio


def named(text: str) -> Any:
    async def middleware(request: Request, call_next: Any) -> Response:
        request.state.setdefault("order", []).append(text)
        response: Response = await call_next(request)
        response.headers["x-order"] = response.headers.get("x-order", "") + text
        return response

    return middleware


def order(request: Request) -> Any:
    return request.state.get("order", [])


def add_middleware(fn: Any, context: Any) -> None:
    context.add_middleware(fn)


async def test_middleware_by_priority_then_that_of_the_route(site: Site) -> None:
    def load(context: Any) -> None:
        context.add_middleware(named("b"))
        context.add_middleware(named("c"))
        context.add_middleware(named("a"), priority=20)
        context.add_route("GET", "/x", named("d"), named("e"), order)

    async with site.plugin(load):
        answer = await site.client.get("/x")
        assert answer.json() == ["a", "b", "c", "d", "e"]
        assert answer.headers["x-order"] == "edcba"
        missing = await site.client.get("/nothing")
        assert (missing.status_code, missing.headers["x-order"]) == (404, "cba")
    assert "x-order" not in (await site.client.get("/x")).headers


async def test_middleware_may_answer_by_itself_or_change_the_answer(site: Site) -> None:
    async def door(request: Request, call_next: Any) -> Any:
        if request.headers.get("x-key") != "open":
            return Response("closed", 403)
        answer = await call_next(request)
        answer.body = answer.body.upper()
        answer.status = 201
        return answer

    async with site.route("GET", "/x", door, lambda request: "inside") as client:
        assert (await client.get("/x")).status_code == 403
        answer = await client.get("/x", headers={"x-key": "open"})
        assert (answer.status_code, answer.text) == (201, "INSIDE")


async def test_a_lambda_may_pass_the_awaitable_on(site: Site) -> None:
    async with site.route(
        "GET", "/x", lambda request, call_next: call_next(request), lambda request: "x"
    ) as client:
        assert (await client.get("/x")).text == "x"


async def test_middleware_sees_what_the_handler_raises(site: Site) -> None:
    async def catch(request: Request, call_next: Any) -> Any:
        try:
            return await call_next(request)
        except KeyError:
            return Response("caught", 418)

    def fail(request: Request) -> None:
        raise KeyError("x")

    async with site.route("GET", "/x", catch, fail) as client:
        assert (await client.get("/x")).text == "caught"


async def test_failing_middleware_is_its_own_plugins_fault(site: Site) -> None:
    async def before(request: Request, call_next: Any) -> Any:
        raise ValueError

    async def after(request: Request, call_next: Any) -> Any:
        await call_next(request)
        raise ValueError

    async def forgets(request: Request, call_next: Any) -> None:
        await call_next(request)

    async with site.route("GET", "/x", named("r"), lambda request: "x") as client:
        for fn in (before, after, forgets):
            async with site.plugin(partial(add_middleware, fn), "bad") as bad:
                assert (await client.get("/x")).status_code == 500
                assert bad.error_count == 1
        assert site.errors() == 0
        assert (await client.get("/x")).status_code == 200


async def test_call_next_does_not_buffer_a_stream(site: Site) -> None:
    turns = asyncio.Queue[str]()

    async def chunks() -> AsyncIterator[str]:
        while (text := await turns.get()) != "end":
            yield text

    async with site.route("GET", "/x", named("m"), chunks) as client:
        turns.put_nowait("one")
        async with asyncio.timeout(5), client.stream("GET", "/x") as answer:
            assert answer.headers["x-order"] == "m"
            texts = answer.aiter_text()
            assert await anext(texts) == "one"
            turns.put_nowait("two")
            assert await anext(texts) == "two"
            turns.put_nowait("end")
            assert [text async for text in texts] == []


async def test_hooks_on_middleware_may_replace_it(site: Site) -> None:
    def other(middleware: Any) -> Any:
        return named("other")

    async with (
        site.plugin(lambda context: context.hook("middleware:add", other), "hook"),
        site.plugin(lambda context: context.add_middleware(named("mine"))),
    ):
        assert (await site.client.get("/x")).headers["x-order"] == "other"


async def test_a_duplicate_route_is_refused_and_names_who_has_it(site: Site) -> None:
    async with site.route("GET", "/x/{id}", lambda request: "first") as client:
        with pytest.raises(VekoError, match=r"GET /x/\{name\} is taken by the plugin 'guest'"):
            async with site.plugin(
                lambda context: [
                    context.add_route("GET", "/other", lambda request: "other"),
                    context.add_route("GET", "/x/{name}", lambda request: "second"),
                ],
                "second",
            ):
                pass
        assert (await client.get("/x/1")).text == "first"
        assert (await client.get("/other")).status_code == 404
        async with site.plugin(
            lambda context: context.add_route("POST", "/x/{name}", lambda request: "post"), "third"
        ):
            assert (await client.post("/x/1")).text == "post"


async def test_toggling_takes_routes_hooks_and_middleware_along(site: Site) -> None:
    def load(context: Any) -> None:
        context.add_middleware(named("m"))
        context.add_route("GET", "/x", order)
        context.hook("request:start", lambda r: r.state.setdefault("order", []).append("h"))

    async with site.plugin(load), _other(site):
        assert (await site.client.get("/x")).json() == ["h", "m"]
        await site.kernel.toggle("guest", False)
        assert (await site.client.get("/x")).status_code == 404
        assert (await site.client.get("/y")).json() == []
        await site.kernel.toggle("guest", True)
        assert (await site.client.get("/x")).json() == ["h", "m"]
        assert (await site.client.get("/y")).json() == ["h", "m"]
    assert (await site.client.get("/x")).status_code == 404


def _other(site: Site) -> contextlib.AbstractAsyncContextManager[Any]:
    return site.plugin(lambda context: context.add_route("GET", "/y", order), "other")


def guard(route: Route) -> Route | None:
    async def check(request: Request, call_next: CallNext) -> Response:
        if "x-key" not in request.headers:
            raise HTTPError(401, "no key")
        return await call_next(request)

    if not route.path.startswith("/admin/"):
        return None
    return msgspec.structs.replace(route, middlewares=(check, *route.middlewares))


async def test_a_guard_comes_and_goes_with_its_plugin(site: Site) -> None:
    def load(context: Any) -> None:
        context.add_route("GET", "/admin/x", lambda request: "secret")
        context.add_route("GET", "/public", lambda request: "public")

    async def status() -> int:
        assert (await site.client.get("/public")).status_code == 200
        return int((await site.client.get("/admin/x")).status_code)

    async with site.plugin(load):
        assert await status() == 200
        async with site.plugin(lambda context: context.hook("route:create", guard), "guard"):
            assert await status() == 401
            answer = await site.client.get("/admin/x", headers={"x-key": "1"})
            assert answer.text == "secret"
            await site.kernel.toggle("guard", False)
            assert await status() == 200
            await site.kernel.toggle("guard", True)
            assert await status() == 401
            await site.kernel.toggle("guest", False)
            await site.kernel.toggle("guest", True)
            assert await status() == 401
        assert await status() == 200


async def test_a_guard_that_refuses_keeps_out_new_routes_and_takes_live_ones_out(
    site: Site,
) -> None:
    def refuse(route: Route) -> None:
        raise ValueError(f"not {route.path}")

    refusing = lambda context: context.hook("route:create", refuse)  # noqa: E731
    async with site.plugin(refusing, "refusing"):
        with pytest.raises(Exception, match="not /x"):
            async with site.route("GET", "/x", order):
                pass
    async with site.route("GET", "/x", order) as client:
        async with site.plugin(refusing, "refusing"):
            assert (await client.get("/x")).status_code == 404
        assert (await client.get("/x")).status_code == 200


async def test_route_load_may_add_and_take_away(site: Site) -> None:
    def change(routes: list[Route]) -> list[Route]:
        kept = [route for route in routes if route.path != "/gone"]
        return [*kept, Route("GET", "/extra", lambda request: request.route.plugin)]

    def load(context: Any) -> None:
        context.add_route("GET", "/kept", lambda request: "kept")
        context.add_route("GET", "/gone", lambda request: "gone")

    async def statuses() -> list[int]:
        paths = ("/kept", "/gone", "/extra")
        return [(await site.client.get(path)).status_code for path in paths]

    async with site.plugin(load):
        async with site.plugin(lambda context: context.hook("route:load", change), "change"):
            assert await statuses() == [200, 404, 200]
            assert (await site.client.get("/extra")).text == "guest"
        assert await statuses() == [200, 200, 404]


async def test_a_route_added_later_goes_live_when_its_handle_says_so(site: Site) -> None:
    kept: list[Any] = []

    async with site.plugin(kept.append):
        handle = kept[0].add_route("GET", "/late", lambda request: "late")
        await handle
        assert (await site.client.get("/late")).text == "late"
        with pytest.raises(ConflictError, match="taken by the plugin 'guest'"):
            await kept[0].add_route("GET", "/late", lambda request: "again")
        assert (await site.client.get("/late")).text == "late"
    assert (await site.client.get("/late")).status_code == 404


async def test_a_request_ends_with_the_routes_that_it_began_with(site: Site) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> str:
        entered.set()
        await go.wait()
        return "slow"

    def load(context: Any) -> None:
        context.add_route("GET", "/x", slow)
        context.hook("response:start", lambda a, r: a.headers.__setitem__("x-hook", "1"))

    async with site.plugin(load):
        request = asyncio.create_task(site.client.get("/x"))
        await entered.wait()
        toggle = asyncio.create_task(site.kernel.toggle("guest", False))
        while (await site.client.get("/x")).status_code != 404:
            pass
        go.set()
        answer = await request
        await toggle
        assert (answer.text, answer.headers["x-hook"]) == ("slow", "1")

"""The hooks around a request, and how failures are answered and counted."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from veko_plugins.http import HTTPError, Request, Response

from ._site import Site

pytestmark = pytest.mark.anyio

AROUND = ("request:start", "response:start", "response:end", "request:end")


async def test_hooks_run_around_the_handler_with_one_request(site: Site) -> None:
    owners: list[str] = []
    seen: list[tuple[str, Any, Any]] = []

    def handler(request: Request) -> str:
        seen.append(("handler", request, None))
        return "x"

    def load(context: Any) -> None:
        context.add_route("GET", "/x", handler)
        context.hook("request:start", lambda r: seen.append(("request:start", r, None)))
        context.hook("request:start", lambda r: owners.append(r.route.plugin))
        context.hook("response:start", lambda a, r: seen.append(("response:start", r, a)))
        context.hook("response:end", lambda a, r: seen.append(("response:end", r, a)))
        context.hook("request:end", lambda r, a: seen.append(("request:end", r, a)))

    async with site.plugin(load):
        await site.client.get("/x")
        assert [name for name, *_ in seen] == [
            "request:start", "handler", "response:start", "response:end", "request:end",
        ]  # fmt: skip
        assert len({id(request) for _, request, _ in seen}) == 1
        assert owners == ["guest"]
        assert [answer.status for *_, answer in seen[2:]] == [200, 200, 200]
        seen.clear()
        await site.client.get("/nothing")
        assert seen == []


async def test_a_hook_may_answer_by_itself(site: Site) -> None:
    called: list[str] = []

    def load(context: Any) -> None:
        context.add_route("GET", "/x", lambda request: called.append("handler"))
        context.hook("request:start", lambda r: Response("mine", 203), priority=20)
        context.hook("request:start", lambda r: called.append("later"))
        context.hook("response:start", lambda a, r: a.headers.__setitem__("x-hook", "1"))

    async with site.plugin(load):
        answer = await site.client.get("/x")
    assert (answer.status_code, answer.text, answer.headers["x-hook"]) == (203, "mine", "1")
    assert called == []


@pytest.mark.parametrize("status", [401, 503])
@pytest.mark.parametrize("how", ["raised", "returned"])
async def test_a_hook_may_refuse(site: Site, how: str, status: int) -> None:
    seen: list[str] = []

    def guard(request: Request) -> HTTPError:
        refusal = HTTPError(status, "not now", headers={"x-why": "guard"})
        if how == "raised":
            raise refusal
        return refusal

    def load(context: Any) -> None:
        context.add_route("GET", "/x", lambda request: seen.append("handler"))
        context.hook("request:start", guard, priority=20)
        context.hook("request:start", lambda r: seen.append("later"))
        for event in (*AROUND[1:], "request:error", "error:handle"):
            context.hook(event, lambda one, other, event=event: seen.append(event))

    async with site.plugin(load) as record:
        answer = await site.client.get("/x")
        assert (answer.status_code, answer.json()["detail"]) == (status, "not now")
        assert answer.headers["x-why"] == "guard"
        assert record.error_count == 0
    assert seen == [*AROUND[1:]]


async def test_hooks_may_replace_the_request_and_the_response(site: Site) -> None:
    def other(request: Request) -> Request:
        return Request({**request.scope, "query_string": b"a=2"}, request.receive)

    def load(context: Any) -> None:
        context.add_route("GET", "/x/{id:int}", lambda r: [r.query["a"], r.path_params["id"]])
        context.hook("request:start", other)
        context.hook("response:start", lambda a, r: Response(f"was {a.body.decode()}", 202))

    async with site.plugin(load):
        answer = await site.client.get("/x/7?a=1")
    assert (answer.status_code, answer.text) == (202, 'was ["2",7]')


async def test_a_body_may_be_read_by_hooks_and_handler(site: Site) -> None:
    lengths: list[int] = []

    async def before(request: Request) -> None:
        lengths.append(len(await request.body()))

    async def after(request: Request, response: Response) -> None:
        lengths.append(len(await request.body()))

    async def handler(data: list[int]) -> int:
        return sum(data)

    def load(context: Any) -> None:
        context.add_route("POST", "/x", handler)
        context.hook("request:start", before)
        context.hook("request:end", after)

    async with site.plugin(load):
        assert (await site.client.post("/x", json=[1, 2])).text == "3"
    assert lengths == [5, 5]


async def test_a_failing_handler_is_a_problem_of_its_plugin_only(site: Site) -> None:
    errors: list[Any] = []

    def fail(request: Request) -> None:
        raise ValueError("a secret")

    def leave(request: Request) -> None:
        raise SystemExit(3)

    async def wait_for_nobody(request: Request) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    def load(context: Any) -> None:
        for path, fn in (("/fail", fail), ("/leave", leave), ("/cancelled", wait_for_nobody)):
            context.add_route("GET", path, fn)
        context.add_route("GET", "/fine", lambda request: "fine")

    def watch(context: Any) -> None:
        context.hook("request:error", lambda e, r: errors.append(("request", type(e), r.path)))
        context.hook("error:handle", lambda e, origin: errors.append((origin.plugin, type(e))))
        context.hook("plugin:error", lambda name, e: errors.append((name, type(e))))

    kinds = {"/fail": ValueError, "/leave": SystemExit, "/cancelled": asyncio.CancelledError}
    async with site.plugin(watch, "watch"), site.plugin(load) as record:
        for path, kind in kinds.items():
            errors.clear()
            answer = await site.client.get(path)
            assert answer.status_code == 500
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json() == {
                "type": "about:blank",
                "title": "Internal Server Error",
                "status": 500,
            }
            assert errors == [("request", kind, path), ("guest", kind), ("guest", kind)]
        assert record.error_count == 3
        assert site.errors("watch") == 0
        assert (await site.client.get("/fine")).text == "fine"


async def test_request_error_may_change_the_error_or_answer(site: Site) -> None:
    def fail(request: Request) -> None:
        raise KeyError(request.query["as"])

    def turn(error: BaseException, request: Request) -> Any:
        if request.query["as"] == "error":
            return HTTPError(404, "no such thing")
        return Response("sorry", 503)

    def load(context: Any) -> None:
        context.add_route("GET", "/x", fail)
        context.hook("request:error", turn)

    async with site.plugin(load) as record:
        answer = await site.client.get("/x?as=error")
        assert (answer.status_code, answer.json()["detail"]) == (404, "no such thing")
        answer = await site.client.get("/x?as=answer")
        assert (answer.status_code, answer.text) == (503, "sorry")
        assert record.error_count == 2


async def test_dev_mode_tells_where_it_failed(site: Site) -> None:
    guest: dict[str, Any] = {"__name__": "guest"}  # frames of Veko's own packages are not shown
    exec("def fail(request):\n    raise ValueError('a secret')", guest)
    asgi = site.kernel.use("http").asgi
    async with site.route("GET", "/x", guest["fail"]) as client:
        asgi.dev_mode = True
        try:
            problem = (await client.get("/x")).json()
        finally:
            asgi.dev_mode = False
    assert problem["detail"] == "ValueError: a secret"
    trace = "".join(problem["traceback"])
    assert "in fail" in trace
    assert "anyio" not in trace  # nor those that run it in a thread


async def test_what_cannot_be_sent_is_a_failure_of_the_handler(site: Site) -> None:
    returned: list[Any] = [object(), {"a": object()}, float]

    async with site.route("GET", "/x", lambda request: returned.pop()) as client:
        for _ in range(3):
            assert (await client.get("/x")).status_code == 500


async def test_a_header_that_begins_another_is_refused(site: Site) -> None:
    def handler(request: Request) -> Response:
        return Response("x", headers={"x-name": request.query["name"]})

    async with site.route("GET", "/x", handler) as client:
        answer = await client.get("/x", params={"name": "a\r\nset-cookie: stolen=1"})
        assert answer.status_code == 500
        assert "set-cookie" not in answer.headers


async def test_a_stream_that_breaks_is_cut_off_and_reported(site: Site) -> None:
    errors: list[Any] = []

    async def chunks() -> AsyncIterator[str]:
        yield "a"
        raise ValueError("broken")

    def load(context: Any) -> None:
        context.add_route("GET", "/x", chunks)
        context.hook("response:error", lambda response, request: errors.append(request.path))
        context.hook("request:end", lambda request, response: errors.append("end"))

    async with site.plugin(load) as record:
        with pytest.raises(httpx.RemoteProtocolError):
            await site.client.get("/x")
        assert errors == ["/x", "end"]
        assert record.error_count == 1


async def test_a_stream_ends_when_the_client_goes_away(site: Site) -> None:
    ended, reported = asyncio.Event(), asyncio.Event()
    errors: list[Any] = []

    async def forever() -> AsyncIterator[str]:
        try:
            while True:
                yield "tick\n"
                await asyncio.sleep(0)
        finally:
            ended.set()

    def on_error(response: Any, request: Any) -> None:
        errors.append(request.path)
        reported.set()

    def load(context: Any) -> None:
        context.add_route("GET", "/x", forever)
        context.hook("response:error", on_error)

    async with site.plugin(load) as record:
        async with httpx.AsyncClient(base_url=site.url) as client, client.stream("GET", "/x") as it:
            async for line in it.aiter_lines():
                assert line == "tick"
                break
        async with asyncio.timeout(5):
            await ended.wait()
            await reported.wait()
        assert record.error_count == 0
    assert errors == ["/x"]


async def test_a_silent_stream_ends_when_the_client_goes_away(site: Site) -> None:
    ended = asyncio.Event()

    async def silent() -> AsyncIterator[str]:
        yield "hello"
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with site.route("GET", "/x", silent):
        async with httpx.AsyncClient(base_url=site.url) as client, client.stream("GET", "/x") as it:
            async for text in it.aiter_text():
                assert text == "hello"
                break
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_stream_lets_go_of_the_registry(site: Site) -> None:
    async def slow() -> AsyncIterator[str]:
        yield "first"
        await go.wait()
        yield "last"

    go = asyncio.Event()
    async with site.route("GET", "/x", slow) as client, client.stream("GET", "/x") as answer:
        texts = answer.aiter_text()
        assert await anext(texts) == "first"
        async with asyncio.timeout(5):
            await site.kernel.unload("guest")
        go.set()
        assert [text async for text in texts] == ["last"]


async def test_a_route_hook_sees_frozen_routes(site: Site) -> None:
    def rename(route: Any) -> Any:
        with pytest.raises(AttributeError):
            route.path = "/y"
        return msgspec.structs.replace(route, path="/y" + route.path)

    async with (
        site.plugin(lambda context: context.hook("route:create", rename), "rename"),
        site.route("GET", "/x", lambda request: request.route.path) as client,
    ):
        assert (await client.get("/x")).status_code == 404
        assert (await client.get("/y/x")).text == "/y/x"

"""`cached(encoded=False)`: what a handler returned is kept, and encoded for each request."""

import asyncio
import datetime as dt
import threading
from typing import Any

import httpx
import msgspec
import pytest

from veko_plugins import CacheError, Request, Response
from veko_plugins.http import CallNext

from .conftest import App, Start

pytestmark = pytest.mark.anyio
ADAPTERS = ["asgi", "starlette", "litestar"]


class Post(msgspec.Struct):
    title: str
    at: dt.datetime


def client_of(app: App) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app.manager.asgi, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://shop")


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_value_is_kept_and_encoded_for_each_request(start: Start, adapter: str) -> None:
    app = await start(adapter=adapter)
    calls: list[str] = []

    async def stamp(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        calls.append("stamp")
        response.headers["x-stamp"] = str(calls.count("stamp"))
        return response

    async def later(name: str, size: int = 1) -> list[Post]:
        calls.append(f"later {name} {size}")
        return [Post(name, dt.datetime(2026, 11, 28, 10, tzinfo=dt.UTC))] * size

    def at_once(request: Request) -> dict[str, str]:
        calls.append(threading.current_thread().name)
        return {"path": request.path}

    def load(context: Any) -> None:
        cached = context.cache.cached(60, encoded=False, tags=["posts"])
        context.add_route("GET", "/later/{name}", cached, stamp, later)
        context.add_route("GET", "/once", cached, at_once)

    cache = (await app.plugin("site", load)).cache
    async with client_of(app) as client:
        first, second = await client.get("/later/tea?size=2"), await client.get("/later/tea?size=2")
        assert first.json() == second.json()
        assert first.content == second.content
        assert first.json()[0] == {"title": "tea", "at": "2026-11-28T10:00:00Z"}
        assert calls == ["later tea 2", "stamp", "stamp"]
        assert [one.headers["x-stamp"] for one in (first, second)] == ["1", "2"]
        assert first.headers["cache-status"] == "Veko; fwd=miss; stored"
        assert second.headers["cache-status"] == "Veko; hit"
        assert (await client.get("/later/x")).json() == (await client.get("/later/x")).json()
        assert (await client.get("/later/x?size=no")).status_code == 400
        del calls[:]
        for _ in range(3):
            assert (await client.get("/once")).json() == {"path": "/once"}
        assert len(calls) == 1
        await cache.clear(tags=["posts"])
        await client.get("/once")
        assert len(calls) == 2
        await client.get("/once", headers={"cookie": "a=b"})
        await client.get("/once", headers={"cache-control": "no-cache"})
        assert len(calls) == 4
        document = (await client.get("/schema/openapi.json")).json()
        names = [p["name"] for p in document["paths"]["/later/{name}"]["get"]["parameters"]]
        assert sorted(names) == ["name", "size"]


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_thousand_requests_at_once_run_the_handler_once(start: Start, adapter: str) -> None:
    app = await start(adapter=adapter)
    calls, go_on = 0, asyncio.Event()

    async def slow() -> dict[str, int]:
        nonlocal calls
        calls += 1
        await go_on.wait()
        return {"call": calls}

    await app.plugin(
        "site",
        lambda context: context.add_route(
            "GET", "/slow", context.cache.cached(60, encoded=False), slow
        ),
    )
    async with client_of(app) as client:
        tasks = [asyncio.create_task(client.get("/slow")) for _ in range(1_000)]
        async with asyncio.timeout(60):
            while not calls:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            go_on.set()
            answers = await asyncio.gather(*tasks)
    assert {answer.text for answer in answers} == {'{"call":1}'}
    assert calls == 1


async def test_what_is_no_value_or_no_success_is_not_kept(start: Start) -> None:
    app = await start()
    calls = 0

    def load(context: Any) -> None:
        def counted(answer: Any) -> Any:
            def handler() -> Any:
                nonlocal calls
                calls += 1
                return answer() if callable(answer) else answer

            return handler

        cached = context.cache.cached(60, encoded=False)
        context.add_route("GET", "/response", cached, counted(Response("x")))
        context.add_route("GET", "/nothing", cached, counted(None))
        context.add_route("GET", "/fails", cached, counted(lambda: 1 / 0))

    await app.plugin("site", load)
    async with client_of(app) as client:
        for number, path in enumerate(("/response", "/nothing", "/fails"), 1):
            assert len({(await client.get(path)).status_code for _ in range(2)}) == 1
            assert calls == 2 * number


async def test_a_guard_that_comes_later_keeps_the_routes_that_it_leaves(start: Start) -> None:
    app = await start()
    calls = 0

    def page() -> str:
        nonlocal calls
        calls += 1
        return "page"

    await app.plugin(
        "site",
        lambda context: context.add_route(
            "GET", "/page", context.cache.cached(60, encoded=False), page
        ),
    )
    async with client_of(app) as client:
        await client.get("/page")
        await app.plugin("guard", lambda context: context.hook("route:create", lambda route: None))
        assert (await client.get("/page")).text == "page"
        assert calls == 1


async def test_for_all_routes_and_for_what_is_no_function_it_is_refused(start: Start) -> None:
    app = await start(adapter="litestar")

    def everywhere(context: Any) -> None:
        context.add_middleware(context.cache.cached(60, encoded=False))

    with pytest.raises(CacheError, match="is for single routes"):
        await app.plugin("everywhere", everywhere)

    class Page:
        def __call__(self) -> str:
            return "page"

    def of_an_object(context: Any) -> None:
        context.add_route("GET", "/x", context.cache.cached(60, encoded=False), Page())

    with pytest.raises(CacheError, match="needs a function"):
        await app.plugin("object", of_an_object)

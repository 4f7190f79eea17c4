"""A known request through three plugins, as collectors that are not ours receive it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from veko_plugins import PluginManager

from .conftest import Tap, attributes

pytestmark = pytest.mark.anyio
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def orders(context: Any) -> None:
    def get(id: int) -> dict[str, int]:
        return {"id": id}

    def broken() -> None:
        raise ValueError("out of stock")

    async def check(request: Any) -> None:
        await asyncio.sleep(0.002)
        await context.emit("checked", 1)

    context.hook("request:start", check)
    context.add_route("GET", "/orders/{id:int}", get)
    context.add_route("GET", "/broken", broken)


def audit(context: Any) -> None:
    def stamp(response: Any) -> None:
        with trace.get_tracer("audit").start_as_current_span("write the log") as span:
            span.set_attribute("audit.lines", 3)

    context.hook("response:start", stamp, priority=20)
    context.hook("plugin:orders:checked", lambda value: None)


def headers(context: Any) -> None:
    async def add(response: Any) -> Any:
        response.headers["x-served-by"] = "veko"
        return response

    context.hook("response:start", add)
    context.hook("request:end", lambda: None)


@asynccontextmanager
async def served(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[PluginManager, str]]:
    """The three plugins on a real server."""
    options = {"adapter": "asgi", "storage": "none", **options}
    manager = PluginManager(root=tmp_path, auto_load=False, **options)
    async with manager:
        for load in (orders, audit, headers):
            await manager.load_plugin({"name": load.__name__, "version": "1.2.3", "load": load})
        stop = asyncio.Event()
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(
            manager.use("http").serve(
                port=0, stop=stop, started=lambda host, port: ready.set_result(f"{host}:{port}")
            )
        )
        try:
            yield manager, f"http://{await ready}"
        finally:
            stop.set()
            await task


def of_trace(spans: list[Span], id: str) -> list[Span]:
    return [span for span in spans if span.trace_id.hex() == id]


async def test_a_request_through_three_plugins(tap: Tap, tmp_path: Path) -> None:
    before = time.time_ns()
    async with served(tmp_path, otlp=tap.url) as (manager, url):
        async with httpx.AsyncClient(base_url=url) as client:
            answer = await client.get(
                "/orders/7", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}
            )
        assert answer.json() == {"id": 7}
        assert await manager.use("tracing").flush()
        await tap.until(lambda spans: len(of_trace(spans, TRACE)) >= 11)
    after = time.time_ns()
    mine = Tap(0)
    mine.spans = of_trace(tap.spans, TRACE)
    assert mine.tree() == {
        "GET /orders/{id:int}": {
            "request:start": {
                "orders.check": {"plugin:orders:checked": {"audit.<lambda>": {}}},
            },
            "response:start": {"audit.stamp": {"write the log": {}}, "headers.add": {}},
            "request:end": {"headers.<lambda>": {}},
        }
    }
    server = mine.named("GET /orders/{id:int}")
    assert server.parent_span_id.hex() == PARENT
    assert server.kind == Span.SPAN_KIND_SERVER
    found = attributes(server)
    assert found["http.request.method"] == "GET"
    assert found["http.route"] == "/orders/{id:int}"
    assert found["http.response.status_code"] == 200
    assert found["url.path"] == "/orders/7"
    assert found["url.scheme"] == "http"
    assert found["server.address"] == "127.0.0.1"
    assert found["client.address"] == "127.0.0.1"
    assert found["network.protocol.version"] == "1.1"
    assert found["user_agent.original"].startswith("python-httpx/")
    assert found["veko.plugin"] == "orders"
    assert found["veko.outcome"] == "ok"
    check = mine.named("orders.check")
    assert check.kind == Span.SPAN_KIND_INTERNAL
    assert attributes(check) == {
        "veko.event": "request:start",
        "veko.plugin": "orders",
        "veko.plugin.version": "1.2.3",
        "veko.plugin.generation": 1,
        "veko.handler": "orders.<locals>.check",
        "veko.priority": 10.0,
        "veko.outcome": "ok",
    }
    assert attributes(mine.named("request:start")) == {
        "veko.event": "request:start",
        "veko.outcome": "ok",
    }
    assert attributes(mine.named("write the log")) == {"audit.lines": 3}
    by_id = {span.span_id: span for span in mine.spans}
    for span in mine.spans:
        assert before <= span.start_time_unix_nano <= span.end_time_unix_nano <= after
        above = by_id.get(span.parent_span_id)
        if above is not None and span.name != "write the log":
            assert above.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= above.end_time_unix_nano
    took = check.end_time_unix_nano - check.start_time_unix_nano
    assert 2_000_000 <= took < 1_000_000_000


async def test_an_error_is_told_once_with_its_stack(tap: Tap, tmp_path: Path) -> None:
    async with served(tmp_path, otlp=tap.url) as (manager, url):
        async with httpx.AsyncClient(base_url=url) as client:
            answer = await client.get("/broken")
            missing = await client.get("/nothing")
        assert (answer.status_code, missing.status_code) == (500, 404)
        assert await manager.use("tracing").flush()
        await tap.until(lambda spans: any(span.name == "GET" for span in spans))
    server = tap.named("GET /broken")
    assert server.status.code == Status.STATUS_CODE_ERROR
    assert attributes(server)["http.response.status_code"] == 500
    assert attributes(server)["error.type"] == "ValueError"
    (event,) = [event for span in tap.spans for event in span.events]
    assert event in server.events
    assert event.name == "exception"
    found = {pair.key: pair.value.string_value for pair in event.attributes}
    assert found["exception.type"] == "ValueError"
    assert found["exception.message"] == "out of stock"
    assert 'raise ValueError("out of stock")' in found["exception.stacktrace"]
    assert attributes(tap.named("GET"))["http.response.status_code"] == 404
    assert tap.named("GET").status.code == Status.STATUS_CODE_UNSET


async def test_the_life_cycle(tap: Tap, tmp_path: Path) -> None:
    async with served(tmp_path, otlp=tap.url) as (manager, _):
        await manager.toggle_plugin("audit")
        await manager.unload_plugin("headers")
        assert await manager.use("tracing").flush()
        await tap.until(lambda spans: any(span.name == "unload headers" for span in spans))
        found = tap.tree()
        assert "load() orders" in found["load orders"]
        assert "toggle audit" in found
        step = attributes(tap.named("load() orders"))
        assert step == {
            "veko.step": "load()",
            "veko.plugin": "orders",
            "veko.plugin.version": "1.2.3",
            "veko.plugin.generation": 1,
            "veko.outcome": "ok",
        }


async def test_headers_that_come_twice(tap: Tap, tmp_path: Path) -> None:
    given = f"00-{TRACE}-{PARENT}-01"
    async with served(tmp_path, otlp=tap.url) as (manager, url):
        async with httpx.AsyncClient(base_url=url) as client:
            parts = [("traceparent", given), ("tracestate", "a=1"), ("tracestate", "b=2,c=3")]
            await client.get("/orders/1", headers=parts)
            another = given.replace("4b", "5b")
            await client.get("/broken", headers=[("traceparent", given), ("traceparent", another)])
        assert await manager.use("tracing").flush()
        await tap.until(lambda spans: any(span.name == "GET /broken" for span in spans))
    assert tap.named("GET /orders/{id:int}").trace_state == "a=1,b=2,c=3"
    broken = tap.named("GET /broken")
    assert broken.parent_span_id == b"", "a request with two parents has none"


async def test_a_middleware_has_its_span(tap: Tap, tmp_path: Path) -> None:
    async def outer(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    async def inner(request: Any, call_next: Any) -> Any:
        if request.query.get("fail"):
            raise KeyError("fail")
        return await call_next(request)

    def load(context: Any) -> None:
        context.add_middleware(outer, priority=20)
        context.add_middleware(inner)

    async with served(tmp_path, otlp=tap.url) as (manager, url):
        await manager.load_plugin({"name": "wraps", "version": "1.0.0", "load": load})
        async with httpx.AsyncClient(base_url=url) as client:
            for query, trace_id in (("", TRACE), ("?fail=1", TRACE[::-1])):
                given = {"traceparent": f"00-{trace_id}-{PARENT}-01"}
                await client.get(f"/orders/7{query}", headers=given)
        assert await manager.use("tracing").flush()
        await tap.until(lambda spans: len(of_trace(spans, TRACE[::-1])) >= 9)
    mine = Tap(0)
    mine.spans = of_trace(tap.spans, TRACE)
    found = mine.tree()["GET /orders/{id:int}"]
    assert found["wraps.outer"] == {"wraps.inner": {}}
    assert attributes(mine.named("wraps.inner"))["veko.plugin"] == "wraps"
    mine.spans = of_trace(tap.spans, TRACE[::-1])
    assert mine.named("wraps.inner").status.code == Status.STATUS_CODE_ERROR

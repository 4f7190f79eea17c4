"""Traces and what goes wrong: collectors, exporters, attributes, bursts, clocks."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from veko import Kernel
from veko_plugins.tracing import Tracing

pytestmark = pytest.mark.anyio


class Collector(ThreadingHTTPServer):
    """A collector that misbehaves on demand."""

    daemon_threads = False

    def __init__(self, status: Callable[[int], int] = lambda count: 200) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = status
        self.count = 0
        self.spans = 0
        self.largest = 0
        self.unknown = 0
        self.came: list[float] = []
        self.headers = {"connection": "close"}
        self.body = b""
        self.go = threading.Event()
        self.go.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"
    timeout = 5

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.count += 1
        self.server.go.wait(10)
        status = self.server.status(self.server.count)
        if status == 200:
            request = ExportTraceServiceRequest.FromString(body)
            for one in request.resource_spans:
                for scope in one.scope_spans:
                    self.server.spans += len(scope.spans)
                    self.server.largest = max(self.server.largest, len(body))
                    self.server.unknown += len(UnknownFieldSet(scope))
        self.server.came.append(time.monotonic())
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def collector(status: Callable[[int], int] = lambda count: 200) -> Iterator[Collector]:
    server = Collector(status)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.go.set()
        server.shutdown()
        thread.join()
        server.server_close()


@asynccontextmanager
async def traced(**config: Any) -> AsyncIterator[tuple[Kernel, Tracing]]:
    async with Kernel() as kernel:
        tracing = Tracing()
        await kernel.load(tracing, {"events": {"step": 0}, **config})

        def load(context: Any) -> None:
            for _ in range(5):
                context.hook("tick", lambda value: None)

        await kernel.load({"name": "busy", "version": "1.0.0", "load": load})
        yield kernel, tracing


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "veko.tracing" and record.levelno >= logging.WARNING
    ]


async def emit(kernel: Kernel, count: int) -> None:
    for number in range(count):
        await kernel.bus.emit("tick", number)


async def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with collector() as gone:
        url = gone.url
    async with traced(otlp=url) as (kernel, tracing):
        for _ in range(5):
            await emit(kernel, 100)
            assert not await tracing.flush(0.05)
        assert tracing.stats().recorded == 3000
        assert tracing.stats().sent == 0
        (line,) = warnings_of(caplog)
        assert "spans cannot be sent to" in line
        begin = time.monotonic()
    assert time.monotonic() - begin < 9, "unloading is bounded"
    assert len(warnings_of(caplog)) == 2  # how many were dropped, at the end
    assert "3000 of 3000 spans were dropped" in warnings_of(caplog)[1]


async def test_errors_that_pass(caplog: pytest.LogCaptureFixture) -> None:
    with collector(lambda count: 503 if count < 3 else 200) as server:
        async with traced(otlp=server.url) as (kernel, tracing):
            await emit(kernel, 50)
            assert await tracing.flush(10)
            assert tracing.stats().sent == 300
            assert tracing.stats().dropped == 0
        assert server.spans == 300
    (line,) = warnings_of(caplog)
    assert "it answered 503" in line


async def test_a_collector_says_how_long_to_wait() -> None:
    with collector(lambda count: 429 if count == 1 else 200) as server:
        server.headers = {"retry-after": "1"}
        async with traced(otlp=server.url) as (kernel, tracing):
            await emit(kernel, 10)
            assert await tracing.flush(10)
        first, second = server.came
    assert second - first >= 1
    assert server.spans == 60


async def test_an_answer_without_end_sends_nothing_twice() -> None:
    with collector() as server:
        server.headers, server.body = {}, bytes(200_000)
        async with traced(otlp=server.url) as (kernel, tracing):
            for _ in range(3):
                await emit(kernel, 10)
                assert await tracing.flush(10)
        assert (server.count, server.spans) == (3, 180)


async def test_errors_that_stay(caplog: pytest.LogCaptureFixture) -> None:
    with collector(lambda count: 400) as server:
        async with traced(otlp=server.url) as (kernel, tracing):
            for _ in range(3):
                await emit(kernel, 10)
                assert await tracing.flush(10)
            assert tracing.stats().sent == 0
            assert tracing.stats().dropped == 180
            assert len(warnings_of(caplog)) == 1
        assert server.count == 3


async def test_a_slow_collector_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with collector() as server:
        server.go.clear()
        async with traced(otlp=server.url) as (kernel, tracing):
            begin = time.monotonic()
            await emit(kernel, 200)
            assert not await tracing.flush(0.2)
            await emit(kernel, 200)
            assert time.monotonic() - begin < 5
            server.go.set()
            assert await tracing.flush(10)
        assert server.spans == 2400
    assert warnings_of(caplog) == []


async def test_memory_has_a_bound_while_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with collector() as gone:
        url = gone.url
    async with traced(otlp=url) as (kernel, tracing):
        assert tracing._outbox is not None
        assert tracing._outbox._collector is not None
        sender = tracing._outbox._collector.sender
        sender._limit = 200_000
        for _ in range(40):
            await emit(kernel, 50)
            await tracing.flush(0)
        stats = tracing.stats()
        assert stats.recorded == 12_000
        assert stats.dropped > 8_000
        assert sender._size <= 200_000
    assert len(warnings_of(caplog)) == 2


async def test_a_burst_of_a_million_spans(caplog: pytest.LogCaptureFixture) -> None:
    with collector() as server:
        async with traced(otlp=server.url, max_pending=20_000) as (kernel, tracing):
            await emit(kernel, 170_000)  # the loop has no turn meanwhile
            stats = tracing.stats()
            assert stats.pending <= 20_006
            assert await tracing.flush(60)
            stats = tracing.stats()
            assert stats.recorded + stats.dropped == 1_020_000
            assert stats.sent == stats.recorded >= 20_000
            await emit(kernel, 10)
            assert await tracing.flush(10)
            assert tracing.stats().recorded == stats.recorded + 60
        assert server.spans == stats.recorded + 60
    first, last = warnings_of(caplog)
    assert "were dropped so far" in first
    assert "were dropped" in last


async def test_an_output_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async with traced(keep=10) as (kernel, tracing):
        assert tracing._outbox is not None

        def fail(rows: Any) -> None:
            raise OSError("no")

        tracing._outbox._pump.outputs.insert(0, fail)
        await emit(kernel, 10)
        await tracing.flush()
        await emit(kernel, 10)
        assert len(await tracing.traces()) == 10
        assert tracing.stats().dropped == 120
    (line,) = warnings_of(caplog)
    assert "OSError: no" in line


class Awkward:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


BAD = {
    "object": Awkward(),
    "huge": 2**70,
    "surrogate": "\ud800",
    "nan": math.nan,
    "none": None,
    "mixed": [1, "a", None, Awkward()],
    "long": "x" * 100_000,
    "nested": {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}},
    "bytes": b"\xff",
    "": "no name",
    7: "no text",
}


async def test_attributes_that_cannot_be_encoded(caplog: pytest.LogCaptureFixture) -> None:
    with collector() as server:
        async with traced(otlp=server.url, keep=10) as (kernel, tracing):

            def load(context: Any) -> None:
                def awkward(value: Any) -> None:
                    span = trace.get_current_span()
                    for key, bad in BAD.items():
                        span.set_attribute(key, bad)  # type: ignore[arg-type]
                    span.add_event("\ud800", {"bad": Awkward()})  # type: ignore[dict-item]
                    span.update_name("\udfff")

                context.hook("bad", awkward)

            await kernel.load({"name": "awkward", "version": "1.0.0", "load": load})
            await kernel.bus.emit("bad", 1)
            assert await tracing.flush(10)
            assert server.spans == 2
            assert tracing.stats().dropped == 0
            assert len(await tracing.traces()) == 1
            assert await tracing.jaeger_file()
    assert warnings_of(caplog) == []


async def test_nothing_is_sent_that_the_protocol_does_not_know() -> None:
    with collector() as server:
        async with traced(otlp=server.url) as (kernel, tracing):

            def load(context: Any) -> None:
                def more(value: Any) -> None:
                    trace.get_current_span().set_attribute("answer", value)

                context.hook("tick", more)
                context.hook("tick", lambda value: trace.get_current_span().add_event("now"))

            await kernel.load({"name": "more", "version": "1.0.0", "load": load})
            await emit(kernel, 3)
            assert await tracing.flush(10)
        assert server.spans == 3 * 8
        assert server.unknown == 0


async def test_spans_of_plugins_are_sent_though_nothing_is_emitted() -> None:
    with collector() as server:
        async with traced(otlp=server.url, keep=10, max_pending=500) as (_, tracing):
            tracer = trace.get_tracer("own")

            def ended_elsewhere() -> None:
                for _ in range(100):
                    tracer.start_span("own").end()

            await asyncio.gather(*(asyncio.to_thread(ended_elsewhere) for _ in range(4)))
            assert await tracing.flush(10)
            assert (server.spans, tracing.stats().recorded, tracing.stats().sent) == (400,) * 3
            assert len(await tracing.traces()) == 10
            for _ in range(700):
                tracer.start_span("own").end()
            assert tracing.stats().pending == 500
            assert await tracing.flush(10)
            assert (tracing.stats().sent, tracing.stats().dropped) == (900, 200)
            tracer.start_span("last").end()
        assert server.spans == 901


async def test_requests_to_the_collector_are_of_bounded_size() -> None:
    with collector() as server:
        async with traced(otlp=server.url) as (kernel, tracing):

            def load(context: Any) -> None:
                def long(value: Any) -> None:
                    trace.get_current_span().set_attribute("long", "x" * 16_000)

                context.hook("long", long)

            await kernel.load({"name": "long", "version": "1.0.0", "load": load})
            for _ in range(1000):
                await kernel.bus.emit("long")
            assert await tracing.flush(10)
        assert server.spans == 2000
        assert 16_000 < server.largest < 4 * 2**20


async def test_an_error_without_text() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async with traced(keep=10) as (kernel, tracing):

        def load(context: Any) -> None:
            def fail(value: Any) -> None:
                raise Mute

            context.hook("bad", fail)

        await kernel.load({"name": "mute", "version": "1.0.0", "load": load})
        with pytest.raises(Mute):
            await kernel.bus.emit("bad", 1, strict=True)
        (found,) = await tracing.traces()
        assert len(found["spans"]) == 2


async def test_a_clock_that_jumps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    real, back = time.time_ns, 0

    def jumping() -> int:
        return real() - back

    monkeypatch.setattr(time, "time_ns", jumping)
    async with traced(keep=10) as (kernel, tracing):

        def load(context: Any) -> None:
            async def outer(value: Any) -> None:
                nonlocal back
                await kernel.bus.emit("tick", 1)
                await tracing.flush()
                back = 3600 * 10**9
                await asyncio.sleep(0)
                await kernel.bus.emit("tick", 2)
                await tracing.flush()

            context.hook("outer", outer)

        await kernel.load({"name": "jumps", "version": "1.0.0", "load": load})
        await kernel.bus.emit("outer")
        (found,) = await tracing.traces()
    spans = {span["spanID"]: span for span in found["spans"]}
    assert len(spans) == 14
    for span in spans.values():
        assert span["duration"] >= 0
        if span["references"]:
            above = spans[span["references"][0]["spanID"]]
            assert above["startTime"] <= span["startTime"]
            begun = span["startTime"] + span["duration"]
            assert begun <= above["startTime"] + above["duration"] + 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"otlp": "localhost:4318"}, "is not the URL of a collector"),
        ({"otlp": "ftp://localhost"}, "is not the URL of a collector"),
        ({"otlp": "http://localhost:port"}, "is not the URL of a collector"),
        ({"otlp": "http://[::1"}, "is not the URL of a collector"),
        ({"sample": 2}, "sample"),
        ({"keap": 1}, "keap"),
        ({"max_pending": 0}, "max_pending"),
    ],
)
async def test_a_bad_configuration_refuses_to_load(config: dict[str, Any], message: str) -> None:
    async with Kernel() as kernel:
        with pytest.raises(Exception, match=message) as caught:
            await kernel.load(Tracing(), config)
        assert type(caught.value).__name__ in ("ConfigError", "OptionError", "LoadError")


@pytest.mark.parametrize(
    "header",
    [
        "", "garbage", "00-0-0-01", "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01", "00-" + "1" * 32 + "-" + "1" * 16 + "-zz",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01-more", "\xff\xfe", "00-" + "A" * 32 + "-x",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01" + "x" * 1000,
        "00-" + "A" * 32 + "-" + "1" * 16 + "-01",
    ],
)  # fmt: skip
async def test_a_traceparent_that_is_none_begins_a_trace(
    header: str, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import httpx

    from veko_plugins import PluginManager

    settings = {"tracing": {"keep": 10, "events": {"step": 0}}}
    options: dict[str, Any] = {
        "adapter": "asgi",
        "storage": "none",
        "watchdog": 0,
        "plugins": settings,
    }
    async with PluginManager(root=tmp_path, auto_load=False, **options) as manager:
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            sent = {b"traceparent": header.encode("latin-1"), b"baggage": b"a=b"}
            answer = await client.get("/", headers=list(sent.items()))
            assert answer.status_code == 404
        (found,) = await manager.use("tracing").traces()
        (span,) = found["spans"]
        assert span["operationName"] == "GET"
        assert span["references"] == []
    assert caplog.records == [], "such headers do not fill the log"

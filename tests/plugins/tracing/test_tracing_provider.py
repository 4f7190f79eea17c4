"""With the application's own `TracerProvider`: its exporters, processors and samplers."""

import subprocess
import sys
from concurrent import futures
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from .conftest import attributes, free_port, tree

APPLICATION = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from veko import Kernel
from veko_plugins.tracing import Tracing

provider = TracerProvider(resource=Resource.create({"service.name": "shop"}), **OPTIONS)
trace.set_tracer_provider(provider)
memory = InMemorySpanExporter()

def below(span):
    by_id = {one.context.span_id: one for one in memory.get_finished_spans()}
    return by_id[span.parent.span_id].name if span.parent else None

async def main():
    async with Kernel() as kernel:
        tracing = Tracing()
        await kernel.load(tracing, {"events": {"step": 0}})
        def load(context):
            async def check(value):
                with trace.get_tracer("orders").start_as_current_span("query"):
                    await asyncio.sleep(0)
            def stamp(value):
                raise ValueError("no ink")
            context.hook("order", check)
            context.hook("order", stamp)
        await kernel.load({"name": "orders", "version": "1.0.0", "load": load})
        await work(kernel, tracing)

async def emitted(kernel, tracing):
    await kernel.bus.emit("order", 1)
    await tracing.flush()
"""


def run(options: str, body: str, *args: str) -> str:
    """Run an application in a process of its own: a provider is set once a process."""
    source = APPLICATION.replace("**OPTIONS", options) + body + "\nasyncio.run(main())\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source, *args],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """The official service."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            values = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.services.add(values["service.name"])
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


def test_over_grpc_by_the_official_exporter() -> None:
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = free_port()
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        run(
            "",
            """
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
provider.add_span_processor(
    BatchSpanProcessor(OTLPSpanExporter(f"http://127.0.0.1:{sys.argv[1]}", insecure=True))
)
async def work(kernel, tracing):
    for _ in range(10):
        await emitted(kernel, tracing)
    assert not tracing.ordinary
    provider.shutdown()
""",
            str(port),
        )
    finally:
        server.stop(None).wait()
    assert collector.services == {"shop"}
    by_trace: dict[bytes, list[Span]] = {}
    for span in collector.spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    assert len(by_trace) == 10
    for spans in by_trace.values():
        assert tree(spans) == {"order": {"orders.check": {"query": {}}, "orders.stamp": {}}}
        (stamp,) = [span for span in spans if span.name == "orders.stamp"]
        assert attributes(stamp)["veko.outcome"] == "error"
        assert stamp.status.code == stamp.status.STATUS_CODE_ERROR
        assert [event.name for event in stamp.events] == ["exception"]


@pytest.mark.parametrize("kind", ["SimpleSpanProcessor", "BatchSpanProcessor"])
def test_plain_processors(kind: str) -> None:
    run(
        "",
        f"""
provider.add_span_processor({kind}(memory))
async def work(kernel, tracing):
    await emitted(kernel, tracing)
    provider.force_flush()
    spans = {{span.name: span for span in memory.get_finished_spans()}}
    assert set(spans) == {{"order", "orders.check", "orders.stamp", "query"}}, set(spans)
    assert below(spans["orders.check"]) == "order"
    assert below(spans["query"]) == "orders.check"
    assert spans["orders.check"].attributes["veko.plugin"] == "orders"
    assert spans["orders.check"].resource.attributes["service.name"] == "shop"
    assert spans["orders.stamp"].status.description == "ValueError: no ink"
    assert spans["query"].start_time >= spans["orders.check"].start_time
    assert spans["query"].end_time <= spans["orders.check"].end_time + 1000
    provider.shutdown()
""",
    )


def test_other_processors_get_ordinary_spans() -> None:
    run(
        "",
        """
class Own(SpanProcessor):
    def __init__(self):
        self.began, self.ended = [], []
    def on_start(self, span, parent_context=None):
        span.set_attribute("own", True)
        self.began.append(span.name)
    def on_end(self, span):
        assert span.attributes["own"] is True
        self.ended.append((span.name, span.context.span_id, span.parent))

own = Own()
provider.add_span_processor(own)
async def work(kernel, tracing):
    await emitted(kernel, tracing)
    assert tracing.ordinary
    assert sorted(own.began) == ["order", "orders.check", "orders.stamp", "query"]
    ended = {name: (id, parent) for name, id, parent in own.ended}
    assert ended["query"][1].span_id == ended["orders.check"][0]
    assert ended["orders.check"][1].span_id == ended["order"][0]
""",
    )


@pytest.mark.parametrize(
    ("sampler", "least", "most"),
    [
        ("ALWAYS_OFF", 0, 0),
        ("ParentBased(ALWAYS_OFF)", 0, 0),
        ("ParentBased(TraceIdRatioBased(0.5))", 60, 140),
    ],
)
def test_the_samplers_of_the_application(sampler: str, least: int, most: int) -> None:
    out = run(
        f"sampler=__import__('opentelemetry.sdk.trace.sampling', fromlist=['x']) and {sampler}",
        """
provider.add_span_processor(SimpleSpanProcessor(memory))
async def work(kernel, tracing):
    for _ in range(200):
        await kernel.bus.emit("order", 1)
    await tracing.flush()
    names = [span.name for span in memory.get_finished_spans()]
    assert names.count("order") == names.count("orders.check") == names.count("query"), names
    print(names.count("order"))
""",
    )
    assert least <= int(out) <= most


def test_a_sampler_is_asked_about_the_trace_that_begins() -> None:
    run(
        "sampler=TraceIdRatioBased(0.5)",
        """
provider.add_span_processor(SimpleSpanProcessor(memory))
async def work(kernel, tracing):
    for _ in range(100):
        await kernel.bus.emit("order", 1)
    await tracing.flush()
    spans = memory.get_finished_spans()
    assert len(spans) > 0
    bound = TraceIdRatioBased.get_bound_for_rate(0.5)
    for span in spans:
        assert span.context.trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < bound, span.name
    names = [span.name for span in spans]
    assert names.count("order") == names.count("orders.check") == names.count("query"), names
""",
    )


def test_a_sampler_that_raises_costs_the_trace_and_one_line() -> None:
    body = """
class Broken:
    def should_sample(self, *args, **kwargs):
        raise RuntimeError("broken")
    def get_description(self):
        return "broken"

async def work(kernel, tracing):
    provider.sampler = Broken()
    await kernel.unload("tracing")
    await kernel.load(Tracing(), {"events": {"step": 0}})
    provider.add_span_processor(SimpleSpanProcessor(memory))
    for _ in range(3):
        assert await kernel.bus.emit("order", 1) == 1
    print(len(memory.get_finished_spans()))
"""
    out = run("", "import logging, sys; logging.basicConfig(stream=sys.stdout)\n" + body)
    assert out.splitlines()[-1] == "0"
    assert out.count("sampler raises RuntimeError") == 1


def test_the_entry_point_of_the_runtime_context() -> None:
    done = subprocess.run(
        [
            sys.executable, "-W", "error", "-c",
            "import opentelemetry.context as c\n"
            "from veko_plugins.tracing.recording.context import VARIABLE, install\n"
            "assert type(c._RUNTIME_CONTEXT).__name__ == 'VekoContext', c._RUNTIME_CONTEXT\n"
            "assert c._RUNTIME_CONTEXT._current_context is VARIABLE\n"
            "assert install()",
        ],
        env={"OTEL_PYTHON_CONTEXT": "veko"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_span_in_the_thread_of_a_def_handler_lies_under_its_request() -> None:
    said = run(
        "",
        """
import httpx
from veko_plugins.http import Routes

async def work(kernel, tracing):
    provider.add_span_processor(BatchSpanProcessor(memory))
    await kernel.load(Routes("asgi"))
    def load(context):
        def handler():
            with trace.get_tracer("shop").start_as_current_span("query"):
                return "x"
        context.add_route("GET", "/x", handler)
    await kernel.load({"name": "threads", "version": "1.0.0", "load": load})
    transport = httpx.ASGITransport(kernel.use("http").asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/x")).text == "x"
    await tracing.flush()
    provider.force_flush()
    (query,) = [one for one in memory.get_finished_spans() if one.name == "query"]
    print(below(query))
""",
    )
    assert said.strip() == "GET /x"

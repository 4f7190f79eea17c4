"""Metrics for others: by OTLP to a receiver that is not ours, and as Prometheus reads them."""

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    Gauge,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    Sum,
)
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings
from prometheus_client.parser import text_string_to_metric_families

from veko_plugins import PluginManager
from veko_plugins.manager.composition import core_plugins
from veko_plugins.options import Options
from veko_plugins.signals import Signals
from veko_plugins.telemetry import Exponential, Telemetry
from veko_plugins.telemetry.exponential import bound

pytestmark = pytest.mark.anyio

SHOP = """
name = "shop"
version = "1.0.0"

def load(context):
    context.hook("price", price)
    context.add_route("GET", "/items/{id:int}", lambda id: {"id": id})

def price(item):
    if not item:
        raise ValueError("no item")
    return 3
"""


class Kept(MetricExporter):
    """An exporter that keeps what it gets; what `answer` raises, it raises."""

    def __init__(self) -> None:
        super().__init__()
        self.data: list[MetricsData] = []
        self.answer: Any = lambda: MetricExportResult.SUCCESS

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        self.data.append(metrics_data)
        answer: MetricExportResult = self.answer()
        return answer

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None: ...

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def metric(self, name: str) -> Any:
        """Return the last data of a metric."""
        [resource] = self.data[-1].resource_metrics
        [scope] = resource.scope_metrics
        assert scope.scope.name == "veko"
        return next(metric.data for metric in scope.metrics if metric.name == name)


@asynccontextmanager
async def managed(
    root: Path, telemetry: Telemetry | None = None, **options: Any
) -> AsyncIterator[PluginManager]:
    folder = root / "plugins"
    folder.mkdir(exist_ok=True)
    (folder / "shop.py").write_text(SHOP)
    core = {"telemetry": telemetry} if telemetry is not None else {}
    async with PluginManager(root=root, core=core, **options) as manager:
        yield manager


@asynccontextmanager
async def client(manager: PluginManager) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=manager.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as one:
        yield one


async def use(manager: PluginManager) -> None:
    """Ten emissions, two of them failing; three requests, one for nothing there is."""
    for number in range(10):
        await manager.bus.emit("price", "chair" if number % 5 else "")
    async with client(manager) as one:
        for path in ("/items/1", "/items/2", "/items/x"):
            await one.get(path)


def of(data: Any, **attributes: Any) -> Any:
    """Return the point of some attributes."""
    wanted = {key.replace("__", "."): value for key, value in attributes.items()}
    [point] = [p for p in data.data_points if wanted.items() <= dict(p.attributes).items()]
    return point


async def test_the_sdks_own_exporters_get_genuine_data(tmp_path: Path) -> None:
    kept = Kept()
    async with managed(tmp_path, Telemetry(exporter=kept, resource={"service.name": "s"})) as m:
        await use(m)
        assert await m.use("telemetry").export()
        durations = kept.metric("veko.hook.duration")
        assert isinstance(durations, ExponentialHistogram)
        assert durations.aggregation_temporality is AggregationTemporality.CUMULATIVE
        point = of(durations, veko__plugin="shop", veko__event="price")
        assert (point.count, point.scale) == (10, 3)
        assert point.count == point.zero_count + sum(point.positive.bucket_counts)
        found = m.metrics.get("shop").events["price"]
        assert point.min <= found.p50 * 1e9 <= point.max
        errors = kept.metric("veko.plugin.errors")
        assert isinstance(errors, Sum)
        assert errors.is_monotonic
        assert of(errors, veko__plugin="shop").value == 2
        assert of(kept.metric("veko.emissions"), veko__event="price").value == 10
        plugins = kept.metric("veko.plugins")
        assert isinstance(plugins, Gauge)
        assert of(plugins, veko__state="active").value == 1
        route = {"http__route": "/items/{id:int}", "http__response__status_code": 200}
        requests = of(kept.metric("http.server.request.duration"), **route)
        assert (requests.count, requests.attributes["http.request.method"]) == (2, "GET")
        assert 0 < requests.sum < 10
        assert of(kept.metric("http.server.active_requests")).value == 0
        assert of(kept.metric("veko.posts.waiting")).value >= 0
        assert of(kept.metric("veko.loop.lag")).value >= 0
        [resource] = kept.data[-1].resource_metrics
        assert resource.resource.attributes["service.name"] == "s"
        before = len(kept.data)
    assert len(kept.data) == before + 1, "it exports once more at the end"


async def test_counts_go_on_over_a_reload(tmp_path: Path) -> None:
    kept = Kept()
    async with managed(tmp_path, Telemetry(exporter=kept)) as manager:
        await use(manager)
        await manager.reload_plugin("shop")
        await use(manager)
        await manager.use("telemetry").export()
        assert of(kept.metric("veko.plugin.errors"), veko__plugin="shop").value == 4
        assert of(kept.metric("veko.emissions"), veko__event="price").value == 20
        assert of(kept.metric("veko.hook.duration"), veko__event="price").count == 20


async def test_a_receiver_that_is_not_ours_takes_them(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    found: dict[str, Any] = {}

    async def listen(receiver: OtelTapHttpProtobufReceiver) -> None:
        async for metric in receiver.stream_metrics():
            found[metric.name] = metric
            if {"veko.hook.duration", "veko.emissions", "veko.loop.lag"} <= found.keys():
                return

    settings = OtelTapHttpProtobufReceiverSettings(http_port=port)
    async with asyncio.timeout(20), OtelTapHttpProtobufReceiver(settings) as receiver:
        listening = asyncio.create_task(listen(receiver))
        await asyncio.sleep(0)
        async with managed(tmp_path, Telemetry(otlp=f"http://127.0.0.1:{port}")) as manager:
            await use(manager)
            assert await manager.use("telemetry").export()
        await listening
    points = found["veko.hook.duration"].exponential_histogram.data_points
    [point] = [p for p in points if p.attributes[0].value.string_value == "price"]
    assert (point.count, point.scale) == (10, 3)
    assert sum(point.positive.bucket_counts) == 10


async def test_prometheus_reads_them(tmp_path: Path) -> None:
    async with managed(tmp_path, prometheus="/metrics") as manager:
        await use(manager)
        async with client(manager) as one:
            answer = await one.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    duration = families["veko_hook_duration_seconds"]
    mine = [s for s in duration.samples if s.labels["veko_plugin"] == "shop"]
    mine = [s for s in mine if s.labels["veko_event"] == "price"]
    assert duration.type == "histogram"
    [count] = [s.value for s in mine if s.name.endswith("_count")]
    bounds = [(float(s.labels["le"]), s.value) for s in mine if s.name.endswith("_bucket")]
    assert count == 10
    assert bounds == sorted(bounds)
    assert bounds[-1] == (float("inf"), 10)
    assert bounds[0][0] < 1  # seconds
    [errors] = families["veko_plugin_errors"].samples
    assert (errors.name, errors.value) == ("veko_plugin_errors_total", 2)
    requests = families["http_server_request_duration_seconds"].samples
    labels = {s.labels["http_route"] for s in requests}
    assert "/items/{id:int}" in labels
    assert families["veko_plugins"].type == "gauge"


async def test_an_exporter_that_fails_costs_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept()

    def broken() -> MetricExportResult:
        raise OSError("the collector is down")

    async with managed(tmp_path, Telemetry(exporter=kept)) as manager:
        telemetry = manager.use("telemetry")
        with caplog.at_level(logging.INFO, "veko.telemetry"):
            kept.answer = broken
            assert [await telemetry.export() for _ in range(3)] == [False] * 3
            kept.answer = lambda: MetricExportResult.FAILURE
            assert not await telemetry.export()
            kept.answer = lambda: MetricExportResult.SUCCESS
            assert await telemetry.export()
            await manager.bus.emit("price", "chair")
    messages = [r.getMessage() for r in caplog.records if r.name == "veko.telemetry"]
    assert messages == [
        "metrics could not be exported; Veko keeps trying: the collector is down",
        "metrics are exported again",
    ]


@pytest.mark.parametrize("status", [None, 400, 503])
async def test_a_collector_that_fails_costs_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int | None
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        if status is None:
            server.close()
        async with managed(tmp_path, Telemetry(otlp=url, interval=0.2)) as manager:
            telemetry = manager.use("telemetry")
            assert [await telemetry.export() for _ in range(3)] == [False] * 3
    [line] = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert line.startswith("metrics could not be exported; Veko keeps trying")


async def test_a_cancelled_request_is_no_longer_under_way(tmp_path: Path) -> None:
    kept, reached = Kept(), asyncio.Event()

    def load(context: Any) -> None:
        async def wait() -> None:
            reached.set()
            await asyncio.Event().wait()

        context.add_route("GET", "/wait", wait)

    async with managed(tmp_path, Telemetry(exporter=kept)) as manager:
        await manager.load_plugin({"name": "slow", "version": "1.0.0", "load": load})
        async with client(manager) as one:
            asking = asyncio.create_task(one.get("/wait"))
            await reached.wait()
            await manager.use("telemetry").export()
            assert of(kept.metric("http.server.active_requests")).value == 1
            asking.cancel()
            await asyncio.wait([asking])
            del asking
        await manager.use("telemetry").export()
        assert of(kept.metric("http.server.active_requests")).value == 0


async def test_names_that_have_no_utf_8(tmp_path: Path) -> None:
    kept = Kept()
    telemetry = Telemetry(exporter=kept, prometheus="/metrics")
    async with managed(tmp_path, telemetry) as manager:
        manager.bus.on("odd:\ud800", lambda value: None)
        await manager.bus.emit("odd:\ud800", 1)
        async with client(manager) as one:
            answer = await one.get("/metrics")
        assert answer.status_code == 200
        assert list(text_string_to_metric_families(answer.text))
        assert await manager.use("telemetry").export()
        assert of(kept.metric("veko.emissions"), veko__event="odd:\\ud800").value == 1


async def test_an_exporter_that_hangs_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veko_plugins.telemetry.plugin._LAST_EXPORT", 0.05)
    kept, begun, go = Kept(), threading.Event(), threading.Event()

    def hanging() -> MetricExportResult:
        begun.set()
        go.wait(20)
        return MetricExportResult.SUCCESS

    kept.answer = hanging
    try:
        async with asyncio.timeout(10):
            async with managed(tmp_path, Telemetry(exporter=kept, interval=0.01)) as manager:
                assert await asyncio.to_thread(begun.wait, 5)
                await manager.bus.emit("price", "chair")
            assert len(kept.data) <= 2, "the last one at most, while the first hangs"
    finally:
        go.set()


async def test_names_without_end_are_counted_together(tmp_path: Path) -> None:
    kept = Kept()
    async with managed(tmp_path, Telemetry(exporter=kept)) as manager:
        manager.bus.on("any:*", lambda value: None)
        for number in range(1_200):
            await manager.bus.emit(f"any:{number}", 1)
        await manager.use("telemetry").export()
        points: Sequence[Any] = kept.metric("veko.emissions").data_points
    assert len(points) <= 1_001
    assert of(kept.metric("veko.emissions"), veko__event="_OTHER").value > 100


async def test_nothing_is_loaded_unless_asked_for(tmp_path: Path) -> None:
    async with managed(tmp_path) as manager:
        assert "telemetry" not in {info.name for info in manager.list_plugins(core=True)}


async def test_a_path_that_a_plugin_has_is_refused(tmp_path: Path) -> None:
    async with managed(tmp_path, prometheus="/items/{id:int}") as manager:
        assert "/items/{id:int} is taken by the plugin 'telemetry'" in manager.report.why("shop")


def test_a_histogram_knows_its_sum_within_its_buckets() -> None:
    found = Exponential(offset=-8, counts=[0] * 8 + [4] + [0] * 7 + [2])
    assert found.count == 6
    low, high = 4 * bound(0) + 2 * bound(8), 4 * bound(1) + 2 * bound(9)
    assert low < found.sum < high
    assert (bound(0), bound(8)) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("options", "loaded"),
    [
        ({}, {"tracing", "telemetry"}),
        ({"enable_metrics": False}, {"tracing"}),
        ({"enable_metrics": False, "prometheus": "/metrics"}, {"tracing", "telemetry"}),
    ],
    ids=["metrics", "traces", "prometheus"],
)
def test_metrics_are_exported_only_where_they_are_wanted(
    tmp_path: Path, options: dict[str, Any], loaded: set[str]
) -> None:
    read = Options.read(tmp_path, {"otlp": "http://127.0.0.1:4318", **options}, environ={})
    plugins = core_plugins(read, Signals(), (), PluginManager(root=tmp_path))
    assert {one.manifest.name for one in plugins} & {"tracing", "telemetry"} == loaded

"""What does tracing cost, for each call of a handler and for a request?

    python benchmarks/tracing.py [--quick]

*On the path* is the extra time that an emission takes with the plugin, by handler: in a recorded
request, in one that is not recorded, and where each emission starts a trace and 1 in 100 is
recorded. Handlers observe (return None). It is compared with `start_as_current_span` of the
OpenTelemetry SDK around the same calls, without an exporter.
*In all* is the CPU time of the process by handler, with its threads and the garbage collector,
when everything is sent over OTLP to a collector in another process that accepts it at once. It is
compared with the SDK's `BatchSpanProcessor` and OTLP exporter.
*A request* goes through three plugins, on a server that sends everything to that collector and on
one without tracing, in turns. Each plugin hooks either one of the request's start and the
response's start (7 spans), or all of the request's start, the response's start and its end (13
spans). The server has the first core; wrk with 50 connections and the collector have the last.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.server
import itertools
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _harness import Batch, batch, compare, pin, table
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from veko import Kernel, Subscription
from veko.extend import Probe, Snippet
from veko_plugins import PluginManager
from veko_plugins.tracing import Tracing

WARM = 1_200
"""Emissions before timing: past the kernel's threshold for compiling a plan."""
SAMPLES = {"recorded": 1.0, "not recorded": 0.0, "1 in 100": 0.01}
GOALS = {"recorded": 500, "not recorded": 150, "1 in 100": 150}
KINDS: dict[str, tuple[bool, float | None]] = {
    "def": (False, None),
    "async def": (True, None),
    "async def, limited": (True, 5.0),
}
SHOWN = ("off", "recorded", "not recorded", "1 in 100", "SDK")


def handler(is_async: bool) -> Callable[[int], Any]:
    async def observe(v: int) -> None:
        return None

    def observe_sync(v: int) -> None:
        return None

    return observe if is_async else observe_sync


def by_hand(kernel: Kernel, provider: TracerProvider) -> None:
    """Trace with the SDK alone, without the plugin."""
    tracer = provider.get_tracer("bench")

    def hook(event: str, subscription: Subscription, call: Callable[..., Any]) -> Any:
        attributes = {"veko.event": event, "veko.plugin": "busy", "veko.handler": "observe"}

        async def around_async(v: int) -> Any:
            with tracer.start_as_current_span("busy.observe", attributes=attributes):
                return await call(v)

        def around(v: int) -> Any:
            with tracer.start_as_current_span("busy.observe", attributes=attributes):
                return call(v)

        return around_async if subscription.is_async else around

    def emission(event: str, subscriptions: Sequence[Subscription]) -> Probe:
        lines = Snippet(
            before="sdk_span = sdk_start(sdk_event); sdk_span.__enter__()",
            after="sdk_span.__exit__(None, None, None)",
            failed="sdk_span.__exit__(type(error), error, error.__traceback__)",
            names={"sdk_start": tracer.start_as_current_span, "sdk_event": event},
        )
        return Probe(lines, [None] * len(subscriptions))

    kernel.bus.intercept(hook)
    kernel.bus.probe(emission)


def busy(count: int, is_async: bool, limit: float | None) -> dict[str, Any]:
    def load(context: Any) -> None:
        for _ in range(count):
            context.hook("tick", handler(is_async), timeout=limit)

    return {"name": "busy", "version": "1.0.0", "load": load}


async def on_the_path(seconds: float, counts: tuple[int, ...]) -> None:
    rows: list[list[str]] = []
    met = 0
    for kind, (is_async, limit) in KINDS.items():
        for count in counts:
            async with contextlib.AsyncExitStack() as stack:

                async def make(
                    stack: contextlib.AsyncExitStack = stack,
                    count: int = count,
                    is_async: bool = is_async,
                    limit: float | None = limit,
                ) -> dict[str, Batch]:
                    return {
                        name: await contender(stack, name, busy(count, is_async, limit))
                        for name in SHOWN
                    }

                times = await compare(make, seconds=seconds / (len(KINDS) * len(counts)))
            cells = [f"{count} {kind}"]
            for name in SHOWN[1:]:
                added = times.difference(name, "off") / count
                best = (times.fastest(name) - times.fastest("off")) / count
                good = name in GOALS and added <= GOALS[name]
                met += good
                unit = f"{added / 1000:.1f} µs" if name == "SDK" else f"{added:.0f} ({best:.0f}) ns"
                cells.append(unit if good or name == "SDK" else f"**{unit}**")
            rows.append(cells)
    print(table(["added to each call: median (fastest)", *SHOWN[1:]], rows))
    goals = ", ".join(f"{name} ≤ {goal} ns" for name, goal in GOALS.items())
    print(f"\n{met} of {len(rows) * len(GOALS)} goals met ({goals}); bold ones are not.\n")


async def contender(stack: contextlib.AsyncExitStack, name: str, plugin: Any) -> Batch:
    kernel = await stack.enter_async_context(Kernel())
    tracing: Tracing | None = None
    if name == "SDK":
        by_hand(kernel, TracerProvider(shutdown_on_exit=False))
    elif name != "off":
        tracing = Tracing()
        options = {"events": {"step": 0}, "max_pending": 2**31, "log_ids": False}
        await kernel.load(tracing, {"sample": SAMPLES[name], **options})
    await kernel.load(plugin)
    emit = kernel.bus.emitter("tick")
    for _ in range(WARM):
        await emit(1)
    run = batch("await emit(#)", emit=emit)
    took: list[int] = []

    async def request(turns: int) -> None:
        took.append(await run(turns))

    kernel.bus.on("request", request)

    async def timed(turns: int) -> int:
        # Where each emission begins a trace there is no request around them.
        await (request(turns) if name == "1 in 100" else kernel.bus.emit("request", turns))
        if tracing is not None:
            await tracing.flush()
        return took.pop()

    return timed


class Taker(http.server.BaseHTTPRequestHandler):
    """A collector that accepts everything at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


def on(core: Callable[[Iterable[int]], int], command: list[str]) -> list[str]:
    """Return a command that runs on one core, if there are several."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(cores) < 2 or shutil.which("taskset") is None:
        return command
    return ["taskset", "-c", str(core(cores)), *command]


@contextlib.contextmanager
def child(
    core: Callable[[Iterable[int]], int], *args: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run this file as another process, on the first or last core; gives what it prints first."""
    process = subprocess.Popen(
        on(core, [sys.executable, __file__, *args]),
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


async def in_all(url: str, emissions: int) -> None:
    count = 5
    results: dict[str, list[float]] = {"off": [], "Veko": [], "SDK": []}
    lost = 0
    for _ in range(3):
        for name, times in results.items():
            share = emissions // 10 if name == "SDK" else emissions
            async with Kernel() as kernel:
                provider = None
                if name == "Veko":
                    tracing = Tracing(url)
                    await kernel.load(tracing, {"log_ids": False})
                elif name == "SDK":
                    provider = TracerProvider(shutdown_on_exit=False)
                    exporter = OTLPSpanExporter(f"{url}/v1/traces")
                    provider.add_span_processor(
                        BatchSpanProcessor(exporter, max_queue_size=10_000_000)
                    )
                    by_hand(kernel, provider)
                await kernel.load(busy(count, True, 5.0))
                emit = kernel.bus.emitter("tick")
                for _ in range(WARM):
                    await emit(1)
                begin = time.process_time()
                for number in range(share):
                    await emit(number)
                    if number % 20 == 0:
                        await asyncio.sleep(0)
                if name == "Veko":
                    await tracing.flush(60)
                    lost += tracing.stats().dropped
                elif provider is not None:
                    provider.force_flush()
                times.append((time.process_time() - begin) / share / count * 1e6)
                if provider is not None:
                    provider.shutdown()
    floor = statistics.median(results["off"])
    rows = [
        [name, f"{statistics.median(results[name]) - floor:.2f} µs", goal]
        for name, goal in (("Veko", "≤ 1.5 µs"), ("SDK", ""))
    ]
    print(table(["CPU in all, a call (5 limited async hooks)", "added", "goal"], rows))
    print(f"\n{lost} spans were lost.\n")


def three_plugins(spans: int) -> list[dict[str, Any]]:
    """Make plugins through which a request has so many spans."""

    def load(context: Any) -> None:
        async def begun(request: Any) -> None:
            return None

        def ready(response: Any) -> None:
            return None

        def over(request: Any) -> None:
            return None

        if spans > 7 or context.name != "one":
            context.hook("request:start", begun)
            context.hook("response:start", ready)
        if spans > 7:
            context.hook("request:end", over)
        if context.name == "one":
            context.add_route("GET", "/hello", lambda: {"hello": "world"})

    return [{"name": name, "version": "1.0.0", "load": load} for name in ("one", "two", "three")]


async def serve(adapter: str, spans: int, url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = {"adapter": adapter, "otlp": url or None, "storage": "none", "watchdog": 0}
        async with PluginManager(root=folder, auto_load=False, **options) as manager:
            for plugin in three_plugins(spans):
                await manager.load_plugin(plugin)
            stop = asyncio.Event()
            task = asyncio.create_task(
                manager.use("http").serve(
                    port=0, stop=stop, started=lambda host, port: print(port, flush=True)
                )
            )
            await asyncio.to_thread(sys.stdin.read)
            if url:
                await manager.use("tracing").flush(30)
                stats = manager.use("tracing").stats()
                print(f"{adapter}, {spans} spans: {stats}", file=sys.stderr)
            stop.set()
            await task


class Load(NamedTuple):
    """What wrk saw of a server: requests a second, 99th percentile in ms, µs of CPU a request."""

    rate: float
    tail: float
    cpu: float


def load_of(process: subprocess.Popen[str], port: str, seconds: float) -> Load:
    """Ask a server again and again."""
    command = [
        "wrk",
        "-t1",
        "-c50",
        f"-d{seconds:g}s",
        "--latency",
        f"http://127.0.0.1:{port}/hello",
    ]
    before = cpu_of(process.pid)
    said = subprocess.run(on(max, command), capture_output=True, text=True, check=True).stdout
    used = cpu_of(process.pid) - before
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"the server did not answer well:\n{said}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    count = re.search(r"(\d+) requests in", said)
    assert rate is not None
    assert tail is not None
    assert count is not None
    ms = float(tail[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[tail[2]]
    return Load(float(rate[1]), ms, used / int(count[1]) * 1e6)


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def of_a_request(rounds: int, seconds: float) -> None:
    rows: list[list[str]] = []
    with child(max, "collect") as (_, url):
        for adapter, spans in itertools.product(("litestar", "asgi"), ("7", "13")):
            pairs: list[tuple[Load, Load]] = []
            for number in range(rounds):  # new processes each time, because their speed varies
                found: dict[str, Load] = {}
                for to in ("", url)[:: (-1) ** number]:
                    with child(min, "serve", adapter, spans, to) as server:
                        load_of(*server, 1.0)
                        found[to] = load_of(*server, seconds)
                pairs.append((found[""], found[url]))
            rate, tail, cpu = (
                statistics.median(traced[i] / plain[i] for plain, traced in pairs) for i in range(3)
            )
            plain = Load(*(statistics.median(pair[0][i] for pair in pairs) for i in range(3)))
            rows.append([
                f"{adapter}, {spans} spans", f"{plain.rate:,.0f}/s", f"{rate:.2f}", "≥ 0.85",
                f"{plain.tail:.1f} ms", f"{tail:.2f}", "≤ 2", f"{plain.cpu:.0f} µs", f"{cpu:.2f}",
            ])  # fmt: skip
    head = ["a request", "untraced", "traced", "goal", "p99", "traced", "goal", "CPU", "traced"]
    print(table(head, rows))


async def main(quick: bool) -> None:
    pinned = pin()
    print(f"{platform.python_implementation()} {platform.python_version()}, {pinned}.\n")
    await on_the_path(8 if quick else 60, (5, 20))
    with child(max, "collect") as (_, url):
        await in_all(url, 5_000 if quick else 20_000)


def requests(quick: bool) -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: no requests over sockets")
    of_a_request(*((4, 1.0) if quick else (12, 2.0)))


def collect() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    import threading

    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    if sys.argv[1:2] == ["collect"]:
        collect()
    elif sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2], int(sys.argv[3]), sys.argv[4]))
    else:
        parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
        parser.add_argument("--quick", action="store_true", help="about 20 s, and less exact")
        parser.add_argument("--only", choices=("calls", "requests"), help="one part of it")
        given = parser.parse_args()
        if given.only != "requests":
            asyncio.run(main(given.quick))
        if given.only != "calls":
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
            requests(given.quick)

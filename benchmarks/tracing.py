"""What does tracing cost for each call of a handler?

    python benchmarks/tracing.py [--seconds N] [--quick]

*On the path* is the extra time that an emission takes with the plugin, by handler: in a recorded
request, in one that is not recorded, and where each emission starts a trace and 1 in 100 is
recorded. Handlers observe (return None). It is compared with `start_as_current_span` of the
OpenTelemetry SDK around the same calls, without an exporter; the limit is an emission without
either. *In all* is the CPU time of the process by handler, with its threads and the garbage
collector, when everything is sent over OTLP to a collector in another process that accepts it at
once. It is compared with the SDK's `BatchSpanProcessor` and OTLP exporter. `serving.py` has traced
requests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _apps import COLLECTOR
from _harness import Batch, batch, compare, pinned
from _report import Report, progress, script
from _servers import child
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from veko import Kernel, Subscription
from veko.extend import Probe, Snippet
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
COUNTS = (5, 20)
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


async def on_the_path(report: Report, seconds: float) -> None:
    """Time what is added to each call."""
    rows: list[list[str]] = []
    for kind, (is_async, limit) in KINDS.items():
        for count in COUNTS:
            progress(f"{count} {kind}")
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

                times = await compare(make, seconds=seconds / (len(KINDS) * len(COUNTS)))
            cells = [f"{count} {kind}"]
            for name in SHOWN[1:]:
                added = times.difference(name, "off") / count
                best = (times.fastest(name) - times.fastest("off")) / count
                if name == "SDK":
                    cells.append(f"{added / 1000:.1f} µs")
                    continue
                most = GOALS[name]
                goal = report.goal(f"{count} {kind}, {name}", added, "{:.0f} ns", most=most)
                shown = f"{added:.0f} ({best:.0f}) ns"
                cells.append(shown if goal.met else f"**{shown}**")
            rows.append(cells)
    goals = [f"{name} (≤ {GOALS[name]} ns)" if name in GOALS else name for name in SHOWN[1:]]
    report.table(["added to each call: median (fastest)", *goals], rows)
    report.say("Bold ones missed their goal.")


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


async def in_all(report: Report, url: str, seconds: float) -> None:
    """Measure the processor time, with everything sent."""
    emissions = max(500, round(seconds * 1_500))
    count = 5
    results: dict[str, list[float]] = {"off": [], "Veko": [], "SDK": []}
    lost = 0
    for turn in range(3):
        progress(f"CPU in all, {turn + 1} of 3")
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
    ours, theirs = (statistics.median(results[name]) - floor for name in ("Veko", "SDK"))
    report.goals(
        "CPU in all, a call (5 limited async hooks)",
        [
            report.goal("added by Veko", ours, "{:.2f} µs", most=2.2),
            report.goal("spans lost", lost, "{:g}", most=0),
        ],
    )
    report.say(f"The SDK adds {theirs:.0f} µs.")


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure on the path, then in all."""
    with pinned():
        await on_the_path(report, given.seconds * 0.6)
        command = [sys.executable, str(Path(__file__).with_name("_apps.py")), COLLECTOR]
        with child(command) as (_, url):
            await in_all(report, url, given.seconds * 0.4)


if __name__ == "__main__":
    script(measure, seconds=20)

"""What does measuring cost for each call of a handler?

    python benchmarks/metrics.py [--seconds N] [--quick]

The same plugin runs on a kernel with the core plugin `metrics` and on one without; its handlers
observe (return None). The floor is an interceptor, `def` or `async def`, whose wrapper reads the
clock before and after the call and discards the result. Everything runs in one process on one
core; see `_harness.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from typing import Any

from _harness import Batch, batch, compare, pinned
from _report import Report, progress, script

from veko import Kernel, Subscription
from veko_plugins.metrics import Metrics

WARM = 1_200
"""Emissions before timing: past the kernel's threshold for compiling a plan."""
GOAL = 200
COUNTS = (1, 5, 20)
KINDS: dict[str, tuple[bool, float | None]] = {
    "def": (False, None),
    "async def": (True, None),
    "async def, limited": (True, 5.0),
}


def handler(is_async: bool) -> Callable[[int], Any]:
    async def observe(v: int) -> None:
        return None

    def observe_sync(v: int) -> None:
        return None

    return observe if is_async else observe_sync


def clocked(event: str, subscription: Subscription, call: Callable[..., Any]) -> Callable[..., Any]:
    """The least that a measuring wrapper must do."""
    clock = time.perf_counter_ns
    names = {"call": call, "clock": clock}
    wait = "await " if subscription.is_async else ""
    source = (
        f"{'async ' if subscription.is_async else ''}def wrapped(v):\n"
        " begin = clock()\n"
        f" try: return {wait}call(v)\n"
        " finally: clock() - begin\n"
    )
    exec(compile(source, "<floor>", "exec"), names)
    return names["wrapped"]


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure each kind of handler, alone and with others."""
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
                    def load(context: Any) -> None:
                        for _ in range(count):
                            context.hook("tick", handler(is_async), timeout=limit)

                    batches: dict[str, Batch] = {}
                    for name in ("off", "floor", "on"):
                        kernel = await stack.enter_async_context(Kernel())
                        if name == "on":
                            await kernel.load(Metrics())
                        elif name == "floor":
                            kernel.bus.intercept(clocked)
                        await kernel.load({"name": "busy", "version": "1.0.0", "load": load})
                        emit = kernel.bus.emitter("tick")
                        for _ in range(WARM):
                            await emit(1)
                        batches[name] = batch("await emit(#)", emit=emit)
                    return batches

                with pinned():
                    times = await compare(make, seconds=given.seconds / (len(KINDS) * len(COUNTS)))
            added = times.difference("on", "off") / count
            floor = times.difference("floor", "off") / count
            goal = report.goal(f"{count} {kind}, metrics on", added, "{:+.0f} ns", most=GOAL)
            rows.append([*goal.cells()[:2], f"{floor:+.0f} ns", *goal.cells()[2:]])
    report.table(["added to each call", "metrics", "two clocks", "goal", ""], rows)


if __name__ == "__main__":
    script(measure, seconds=10)

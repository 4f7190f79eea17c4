"""What do a thousand routes cost: finding one of them, and changing one of them?

    python benchmarks/routing.py [--seconds N] [--quick]

Matching is timed in tables of 10, 1,000 and 10,000 routes of one shape each (static, one
parameter, two of them typed), so that only the number differs. Then plugins of one route each are
loaded into and unloaded from an application of 10, 1,000 and 4,000 routes (plugins of five). The
swap is the time between the last moment of the old routes and the first of the new ones, when
nothing else can run.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from typing import Any

from _harness import Batch, batch, compare, pinned, quiet
from _report import Report, progress, script

from veko import Kernel
from veko_plugins.http import Routes, Table

ROUTES_A_PLUGIN = 5
SIZES = (10, 1_000, 10_000)
KINDS = {
    "static": ("/area{}/list", "/area{}/list"),
    "a parameter": ("/area{}/things/{{id}}", "/area{}/things/seven"),
    "typed ones": ("/area{}/at/{{x:int}}/{{y:int}}", "/area{}/at/12/345"),
    "nothing there": ("/area{}/other", "/area{}/nowhere"),
}


def tables(kind: str) -> dict[int, Table[int]]:
    """Make tables of one shape of route."""
    template = KINDS[kind][0]
    return {
        size: Table(("GET", template.format(number), number) for number in range(size))
        for size in SIZES
    }


async def matching(report: Report, seconds: float) -> None:
    """Time the match, where the paths asked for go through the whole table."""
    rows = []
    for kind, (_, asked) in KINDS.items():
        made = tables(kind)

        async def make(made: Any = made, asked: str = asked) -> dict[str, Batch]:
            found = {}
            for size, routes in made.items():
                # The same number of different paths in each, so that they fit the same caches.
                paths = itertools.cycle([asked.format(number % size) for number in range(4_000)])
                found[str(size)] = batch(
                    "match('GET', next())", match=routes.match, next=paths.__next__
                )
            return found

        timings = await compare(make, seconds=seconds / len(KINDS))
        few, many, most = (str(size) for size in SIZES)
        goal = report.goal(f"match, {kind}: 1,000 by 10", timings.ratio(many, few), most=1.5)
        rows.append([
            kind, f"{timings.median(few):.0f}", f"{timings.median(many):.0f}", goal.measured,
            goal.wanted, goal.verdict, f"{timings.ratio(most, few):.2f}×",
        ])  # fmt: skip
    head = ["10 routes, ns", "1,000, ns", "1,000 by 10", "goal", "", "10,000 by 10"]
    report.table(["a match", *head], rows)


def plugin(name: str, routes: int) -> dict[str, Any]:
    """Make a plugin of so many routes."""

    def load(context: Any) -> None:
        for number in range(routes):

            async def handler(request: Any) -> str:
                return "here"

            context.add_route("GET", f"/{name}/{number}/{{id:int}}", handler)

    return {"name": name, "version": "1.0.0", "load": load}


async def changing(size: int, rounds: int) -> list[float]:
    """Return medians of adding, removing and the swap, in ms."""
    adding, removing, swapping = [], [], []
    async with Kernel() as kernel:
        await kernel.load(Routes("asgi"))
        for number in range(size // ROUTES_A_PLUGIN):
            await kernel.load(plugin(f"p{number}", ROUTES_A_PLUGIN))
        bus: Any = kernel.bus
        publish = bus.publish

        def timed(draft: Any) -> None:
            begin = time.perf_counter_ns()
            publish(draft)
            swapping.append((time.perf_counter_ns() - begin) / 1e6)

        bus.publish = timed
        with quiet():
            for _ in range(rounds):
                begin = time.perf_counter_ns()
                await kernel.load(plugin("guest", 1))
                middle = time.perf_counter_ns()
                await kernel.unload("guest")
                adding.append((middle - begin) / 1e6)
                removing.append((time.perf_counter_ns() - middle) / 1e6)
    return [*map(statistics.median, (adding, removing, swapping)), max(swapping)]


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure matching, then changing."""
    with pinned():
        await matching(report, given.seconds / 2)
        rows = []
        for size in (10, 1_000, 4_000):
            progress(f"changing, {size} routes")
            times = await changing(size, max(5, round(given.seconds * 5)))
            rows.append([f"{size:,}", *(f"{time:.3f}" for time in times)])
            if size == 1_000:
                report.goal("adding one route among 1,000", times[0], "{:.2f} ms", most=3)
                report.goal("removing one route among 1,000", times[1], "{:.2f} ms", most=3)
                report.goal("the swap among 1,000 routes", times[2], "{:.3f} ms", most=0.1)
        head = ["add one, ms", "remove it, ms", "the swap, ms", "longest swap, ms"]
        report.table(["routes", *head], rows)


if __name__ == "__main__":
    script(measure, seconds=10)

"""What does a request cost: with the hooks of three plugins around it, as it is by default?

    python benchmarks/serving.py [--seconds N] [--quick] [--in-process] [--node DIR]

The limit is an ASGI function by hand that gives the same answer, with six functions awaited in
place of the hooks; peers are plain Litestar, Starlette and FastAPI. In process, the application is
called as a server would call it, with nothing behind `send`. Over sockets, uvicorn (httptools,
uvloop) runs on one core and wrk with 50 keep-alive connections on the other; the contenders take
turns of a second or more. With `--node`, a directory in which `npm install express fastify` was
run, Express and Fastify take part with the same number of hooks. `_apps.py` has the applications.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import statistics
import sys
from pathlib import Path

from _apps import NAMES, application, ask
from _harness import Batch, Timings, batch, compare, pinned
from _plots import Bar, bars
from _report import Report, progress, script
from _servers import Load, child, wrk

HERE = Path(__file__).parent
ROUNDS = 3
NODE = ("Express", "Fastify")
GOALS = {
    "veko default": ("by hand, hooks", 1 / 1.6),
    "veko asgi": ("by hand", 1 / 1.3),
    "veko litestar, hooks": ("Litestar", 0.95),
    "veko litestar's own, hooks": ("Litestar", 0.90),
    "veko default, unsampled": ("veko default", 0.95),
    "veko default, traced": ("veko default", 0.70),
}
"""What a contender is compared with, and how many of its requests a second it should answer."""


async def in_process(seconds: float) -> Timings:
    """Time a request without a server."""
    async with contextlib.AsyncExitStack() as stack:
        # Several managers on one loop would watch each other's work.
        apps = {n: await stack.enter_async_context(application(n, watchdog=0)) for n in NAMES}
        for app in apps.values():
            for _ in range(1_500):  # past the threshold for compiling a plan
                await ask(app)

        async def make() -> dict[str, Batch]:
            return {name: batch("await ask(app)", ask=ask, app=app) for name, app in apps.items()}

        with pinned():
            return await compare(make, seconds=seconds, batch_ns=4_000_000, lives=1)


def over_sockets(seconds: float, node: Path | None) -> dict[str, list[Load]]:
    """Let the contenders take turns at being asked by wrk."""
    names = [*NAMES, *(NODE if node else ())]
    seen: dict[str, list[Load]] = {name: [] for name in names}
    each = seconds / (len(names) * (ROUNDS + 1))
    rounds, shuffle = (ROUNDS if each >= 0.5 else 1), random.Random(0).shuffle
    with contextlib.ExitStack() as stack:
        urls: dict[str, str] = {}
        for name in names:
            command = [sys.executable, str(HERE / "_apps.py"), name]
            if name in NODE:
                command = ["node", str(HERE / "serving.mjs"), name, str(node)]
            _, url = stack.enter_context(child(command))
            urls[name] = f"{url}/hello"
        for url in urls.values():
            wrk(url, 1)
        for done in range(rounds):
            progress(f"over sockets, round {done + 1} of {rounds}")
            shuffle(names)
            for name in names:
                seen[name].append(wrk(urls[name], each))
    return seen


def show_in_process(report: Report, timings: Timings) -> None:
    """Add the table of what was timed in process."""
    rows = []
    for name in timings.names:
        base, _ = GOALS.get(name, ("", 0.0))
        beside = f"{timings.ratio(name, base):.2f}× {base}" if base else ""
        rows.append([
            name, f"{timings.median(name) / 1_000:.1f}", f"{timings.ratio(name, 'by hand'):.1f}×",
            f"{timings.ratio(name, 'Litestar'):.2f}×", beside,
        ])  # fmt: skip
    report.table(["in process", "µs", "time by hand's", "by Litestar's", "beside"], rows)


def show_over_sockets(report: Report, seen: dict[str, list[Load]]) -> None:
    """Add the table and the picture of what wrk saw."""
    rows, drawn = [], []

    def ratio(name: str, base: str, field: int = 0) -> float:
        pairs = zip(seen[name], seen[base], strict=True)
        return statistics.median(one[field] / other[field] for one, other in pairs)

    for name, loads in seen.items():
        load, base = Load.median(loads), GOALS.get(name)
        ends = ["", "", ""]
        if base:
            of = ratio(name, base[0])
            what = f"requests/s of {name}, of {base[0]}"
            goal = report.goal(what, of, "{:.2f}×", least=round(base[1], 2))
            ends = [f"{goal.measured} {base[0]}", goal.wanted, goal.verdict]
        rows.append([
            name, f"{load.rate:,.0f}", f"{ratio(name, 'by hand'):.2f}×",
            f"{ratio(name, 'Litestar'):.2f}×", f"{load.tail:.1f}", *ends,
        ])  # fmt: skip
        drawn.append(Bar(name, ratio(name, "by hand"), None, f"{load.rate:,.0f} requests a second"))
    tail = ratio("veko default, traced", "veko default", 1)
    report.table(
        [
            "over sockets",
            "requests/s",
            "of by hand",
            "of Litestar",
            "p99, ms",
            "beside",
            "goal",
            "",
        ],
        rows,
    )
    report.goals(
        "the slowest hundredth of requests",
        [report.goal("p99 of veko default, traced, by veko default", tail, most=2)],
    )
    title = "Requests a second over sockets, of an ASGI function by hand"
    report.plot("serving.svg", bars(title, drawn, most=2), title)


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure over sockets, then in process."""
    if given.in_process:
        show_in_process(report, await in_process(given.seconds))
        return
    if shutil.which("wrk") is None:
        report.say("wrk is not installed, so nothing was measured over sockets.")
    else:
        seen = await asyncio.to_thread(over_sockets, given.seconds * 0.85, given.node)
        show_over_sockets(report, seen)
    progress("in process")
    report.part("serving: in process")
    show_in_process(report, await in_process(given.seconds * 0.15))


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--in-process", action="store_true", help="no sockets")
    parser.add_argument("--node", type=Path, help="where Express and Fastify are installed")


if __name__ == "__main__":
    script(measure, seconds=70, options=options)

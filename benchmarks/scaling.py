"""Does the work grow with what there is, and do others get their turn meanwhile?

    python benchmarks/scaling.py [--seconds N] [--quick] [--only TEXT]

The limit is the shape itself: one change costs the same however much there is, and loading and
unloading are linear in what they register. Each curve gives the time of one change (or of one of
many registrations) among more and more of something. The exponent is fitted over its last step of
ten: 0 is flat, 1 grows with what there is, 2 is quadratic in all. A change may grow by what copying
a dict takes; its goal says how long it may take at the end of the curve. *Held* is the longest time
for which a task that wants every turn of the loop got none. There are no peers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import contextvars
import gc
import math
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from _harness import pinned, quiet
from _plots import Curve, curves
from _report import Report, progress, script

from veko import Bus, Context, Handle, Kernel
from veko_plugins.http import Routes

Verb = Callable[[Any, int], Handle]
Measure = Callable[[int], Awaitable[float]]
_MORE = 200
FLAT = 0.35
"""An exponent up to here is noise on something flat."""
HELD = 5.0
"""Milliseconds for which a change may hold the loop."""


async def wait() -> None:
    await asyncio.Event().wait()


def answer(id: str) -> str:
    return id


def hear(value: object) -> None:
    return None


class Ticks:
    """Measures for how long the loop ran nothing else."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.longest, last = max(self.longest, now - last), now


async def held(work: Any) -> tuple[float, float]:
    """Return how long a coroutine took, and the longest time for which the loop was held."""
    ticks = Ticks()
    ticking = asyncio.ensure_future(ticks.run())
    await asyncio.sleep(0)
    begin = time.perf_counter()
    await work
    took = time.perf_counter() - begin
    await asyncio.sleep(0)
    ticking.cancel()
    return took, ticks.longest


# -- what a plugin registers

VERBS: dict[str, tuple[Verb, int]] = {
    "task": (lambda context, n: context.spawn(wait), 10_000),
    "route": (lambda context, n: context.add_route("GET", f"/r{n}/{{id}}", answer), 5_000),
    "hook, one event": (lambda context, n: context.hook("x", hear), 30_000),
    "hook, an event each": (lambda context, n: context.hook(f"x{n}", hear), 30_000),
    "service": (lambda context, n: context.provide(f"s{n}", n), 30_000),
}


class Registered(NamedTuple):
    """Microseconds: of one of many that load, of one more afterwards, of one that is unloaded."""

    load: float
    more: float
    unload: float


async def registering(verb: Verb, count: int) -> Registered:
    """Load a plugin that registers so many."""
    contexts: list[Context] = []

    started = asyncio.Event()

    async def last() -> None:
        started.set()

    async def load(context: Context) -> None:
        contexts.append(context)
        for number in range(count):
            verb(context, number)
            if number % 100 == 0:
                await asyncio.sleep(0)
        context.spawn(last)

    async def live(kernel: Kernel) -> None:
        await kernel.load({"name": "p", "version": "1.0.0", "load": load})
        await started.wait()

    async def more() -> None:
        for handle in [verb(contexts[0], count + number) for number in range(_MORE)]:
            await handle

    async with Kernel(timeout=600) as kernel:
        await kernel.load(Routes("asgi"))
        loaded, _ = await held(live(kernel))
        begin = time.perf_counter()
        await more()
        added = (time.perf_counter() - begin) / _MORE
        unloaded, _ = await held(kernel.unload("p"))
    return Registered(*(1e6 * one for one in (loaded / count, added, unloaded / count)))


async def emitters(count: int) -> float:
    """Return the MiB that emitters of so many names leave, each of them used once."""
    bus = Bus()
    gc.collect()
    tracemalloc.start()
    for number in range(count):
        await bus.emitter(f"order:{number}:made")(number)
    gc.collect()
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return left / 2**20


# -- one change among many


async def _median(change: Callable[[], Any], back: Callable[[], Any] | None = None) -> float:
    times = []
    with quiet():
        for _ in range(9):
            begin = time.perf_counter()
            done = change()
            if isinstance(done, Awaitable):
                await done
            times.append(time.perf_counter() - begin)
            if back is not None:
                await back()
    return statistics.median(times) * 1e6


async def _subscribing(bus: Bus, event: str = "new") -> float:
    return await _median(lambda: bus.on(event, hear).cancel()) / 2


async def after_dynamic_names(count: int) -> float:
    bus = Bus()
    bus.on("user:*", hear)
    for number in range(count):
        await bus.emit(f"user:{number}")
    return await _subscribing(bus)


async def among_emitted_events(count: int) -> float:
    bus = Bus()
    for number in range(count):
        bus.on(f"x{number}", hear)
        await bus.emit(f"x{number}")
    return await _subscribing(bus)


async def pattern_among_emitted_events(count: int) -> float:
    bus = Bus()
    for number in range(count):
        bus.on(f"x{number}", hear)
        await bus.emit(f"x{number}")
    return await _subscribing(bus, "new:*")


async def among_emitters(count: int) -> float:
    bus = Bus()
    emitters = []
    for number in range(count):
        bus.on(f"x{number}", hear)
        emitters.append(bus.emitter(f"x{number}"))
        await emitters[-1](number)
    return await _subscribing(bus)


async def ending_on_retired_plans(count: int) -> float:
    bus, ends = Bus(), []

    async def wait(value: object) -> None:
        ends.append(asyncio.get_running_loop().create_future())
        await ends[-1]

    emissions = []
    for _ in range(count):
        subscription = bus.on("x", wait)
        emissions.append(asyncio.ensure_future(bus.emit("x")))
        await asyncio.sleep(0)
        subscription.cancel()
    begin = time.perf_counter()
    for end in ends:
        end.set_result(None)
    for emission in emissions:
        await emission
    return (time.perf_counter() - begin) / count * 1e6


async def releasing_pins(count: int) -> float:
    times = []
    for _ in range(5):
        bus, pins = Bus(), []
        for _ in range(count):
            pin = contextlib.ExitStack()
            pin.enter_context(bus.pin_live())
            pins.append(pin)
            bus.on("x", hear).cancel()
        with quiet():
            begin = time.perf_counter()
            for pin in pins:
                pin.close()
            times.append((time.perf_counter() - begin) / count * 1e6)
    return min(times)  # one that was interrupted takes many times as long


async def emitting_while_pinned(count: int) -> float:
    """Emit outside of so many pins of older registries."""
    bus = Bus()
    bus.on("x", hear)
    with contextlib.ExitStack() as pins:
        for _ in range(count):
            pins.enter_context(bus.pin_live())
            bus.on("other", hear).cancel()

        async def outside() -> float:
            for _ in range(2_000):
                await bus.emit("x", 1)
            begin = time.perf_counter()
            for _ in range(10_000):
                await bus.emit("x", 1)
            return (time.perf_counter() - begin) / 10_000 * 1e6

        return await asyncio.create_task(outside(), context=contextvars.Context())


async def among_subscriptions(count: int) -> float:
    bus = Bus()
    for number in range(count):
        bus.on(f"x{number}", hear)
    return await _subscribing(bus)


async def among_handlers(count: int) -> float:
    bus = Bus()
    for _ in range(count):
        bus.on("x", hear)
    return await _subscribing(bus, "x")


async def among_pins(count: int) -> float:
    bus = Bus()
    with contextlib.ExitStack() as pins:
        for number in range(count):
            pins.enter_context(bus.pin_live())
            bus.on(f"x{number}", hear)
            await bus.emit(f"x{number}", 1)
        return await _subscribing(bus)


def _plugin(number: int, route: bool = False) -> dict[str, Any]:
    def load(context: Context) -> None:
        context.hook(f"x{number}", hear)
        if route:
            context.add_route("GET", f"/p{number}/{{id}}", answer)

    return {"name": f"p{number}", "version": "1.0.0", "load": load}


async def among_plugins(count: int, route: bool = False) -> dict[str, tuple[float, float]]:
    """Return, for each change of one of so many plugins, its µs and for how many ms it held."""
    found: dict[str, tuple[float, float]] = {}
    async with Kernel(timeout=600) as kernel:
        if route:
            await kernel.load(Routes("asgi"))
        for number in range(count):
            await kernel.load(_plugin(number, route))
            await kernel.bus.emit(f"x{number}", 1)
        changes: dict[str, Callable[[], Awaitable[object]]] = {
            "reload": lambda: kernel.reload(_plugin(1, route)),
            "switch off": lambda: kernel.toggle("p1", False),
            "switch on": lambda: kernel.toggle("p1", True),
            "unload": lambda: kernel.unload("p1"),
            "load": lambda: kernel.load(_plugin(1, route)),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in changes}
        with quiet():
            for _ in range(7):
                for name, change in changes.items():
                    times[name].append(await held(change()))
        for name, taken in times.items():
            middle = statistics.median(took for took, _ in taken)
            found[name] = middle * 1e6, statistics.median(longest for _, longest in taken) * 1e3
    return found


async def routes_of_one_plugin(count: int) -> float:
    """Load, reload and unload a plugin of so many routes; returns the time for each route."""

    async def load(context: Context) -> None:
        for number in range(count):
            context.add_route("GET", f"/r{number}/{{id}}", answer)
            if number % 100 == 0:
                await asyncio.sleep(0)

    async with Kernel(timeout=600) as kernel:
        await kernel.load(Routes("asgi"))
        plugin = {"name": "wide", "version": "1.0.0", "load": load}
        begin = time.perf_counter()
        await kernel.load(plugin)
        await kernel.reload(plugin)
        await kernel.unload("wide")
        return (time.perf_counter() - begin) / count * 1e6


CURVES: dict[str, tuple[Measure, tuple[int, ...], float]] = {
    "bus.on after dynamic names": (after_dynamic_names, (400, 1_200, 4_000), 100),
    "bus.on among emitted events": (among_emitted_events, (100, 300, 1_000), 80),
    "bus.on of a pattern among emitted events": (
        pattern_among_emitted_events, (1_000, 3_000, 10_000), 3_000,
    ),
    "bus.on among emitters": (among_emitters, (1_000, 3_000, 10_000), 80),
    "bus.on among subscriptions": (among_subscriptions, (3_000, 10_000, 30_000), 100),
    "bus.on among handlers of one event": (among_handlers, (1_000, 3_000, 10_000), 100),
    "bus.on among pinned registries": (among_pins, (100, 300, 1_000), 80),
    "end of an emission on a retired plan": (ending_on_retired_plans, (300, 1_000, 3_000), 80),
    "release of a pinned registry": (releasing_pins, (100, 300, 1_000), 40),
    "emission beside pinned registries": (emitting_while_pinned, (1, 10, 100), 1),
    "load, reload and unload of a route": (
        routes_of_one_plugin, (5_000, 15_000, 50_000), 400,
    ),
}  # fmt: skip
"""What is measured, among how many, and how many µs it may take among the most."""
EACH_OF_MANY = {
    "end of an emission on a retired plan", "release of a pinned registry",
    "load, reload and unload of a route",
}  # fmt: skip
"""Must be flat: all of them are then linear."""
PLUGINS = (500, 1_500, 5_000)
PLUGIN_GOAL = 3_000.0
"""Microseconds that a change of one plugin among the most may take."""


def exponent(points: list[tuple[float, float]]) -> float:
    """Fit a power to the last step of ten of a curve, where constant parts weigh least."""
    last = points[-1][0] / 10
    logs = [(math.log(x), math.log(y)) for x, y in points if x >= last and y > 0]
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def judge(
    report: Report, name: str, points: list[tuple[float, float]], most: float, steepest: float
) -> Curve:
    """Say whether a curve is as it should be."""
    power = exponent(points)
    shape = "flat" if power <= FLAT else "linear" if power <= 1.2 else "steeper than linear"
    what = f"{name}, among {points[-1][0]:,g}"
    goal = report.goal(what, points[-1][1], "{:,.1f} µs", most=most)
    grows = report.goal(f"{name}, exponent", power, "{:.2f}", most=steepest)
    note = f"{shape} (exponent {power:.2f}); {goal.measured}, goal {goal.wanted}"
    return Curve(name, points, note, goal.met and grows.met)


def show(report: Report, found: list[Curve], name: str, title: str) -> None:
    """Add curves as a table and as a picture."""
    rows = []
    for curve in found:
        counts = " / ".join(f"{x:,g}" for x, _ in curve.points)
        times = " / ".join(f"{y:,.1f}" for _, y in curve.points)
        rows.append([curve.name, counts, times, curve.note, "met" if curve.met else "**missed**"])
    report.table([title, "among", "µs", "shape (exponent); at the end", ""], rows)
    report.plot(name, curves(title, found, "µs"), title)


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure all of it; below 10 s, with fewer of each."""
    fewer = 1 if given.seconds >= 10 else 10

    def sizes(counts: tuple[int, ...]) -> list[int]:
        return [max(count // fewer, index + 1) for index, count in enumerate(counts)]

    with pinned():
        found = []
        for name, (curve, counts, most) in CURVES.items():
            if given.only in name:
                progress(name)
                points = [(float(n), await curve(n)) for n in sizes(counts)]
                steepest = 0.5 if name in EACH_OF_MANY else 1.2
                found.append(judge(report, name, points, most, steepest))
        if given.only in "plugins":
            by_count = {}
            for count in sizes(PLUGINS):
                progress(f"changes among {count} plugins")
                by_count[count] = await among_plugins(count)
            for change in by_count[count]:
                points = [(float(n), times[change][0]) for n, times in by_count.items()]
                name = f"{change}, among plugins"
                found.append(judge(report, name, points, PLUGIN_GOAL, 1.2))
        show(report, found, "scaling.svg", "One change among more and more")
        if given.only in "holds":
            await holds(report, 1_000 // fewer)
        report.part("scaling: registrations")
        await registrations(report, given.only, fewer)


async def holds(report: Report, count: int) -> None:
    """Say for how long a change holds the loop, among plugins with a route each."""
    progress(f"for how long changes hold the loop, among {count} plugins and routes")
    changes = await among_plugins(count, route=True)
    report.goals(
        f"longest time for which the loop was held, among {count:,} plugins and routes",
        [
            report.goal(f"{change} a plugin", longest, "{:.2f} ms", most=HELD)
            for change, (_, longest) in changes.items()
        ],
    )


async def registrations(report: Report, only: str, fewer: int) -> None:
    """Show what one of many registrations of one plugin costs."""
    found = []
    for name, (verb, largest) in VERBS.items():
        if only not in name:
            continue
        progress(f"a plugin with many of: {name}")
        sizes = [largest // fewer // part for part in (10, 3, 1)]
        taken = {}
        for count in sizes:
            gc.collect()
            taken[count] = await registering(verb, count)
        for field, said in (("load", "loaded"), ("more", "one more"), ("unload", "unloaded")):
            points = [(float(n), max(0.01, getattr(one, field))) for n, one in taken.items()]
            # One more may copy a dict of them; what is loaded together must be linear in all.
            steepest = 1.2 if field == "more" else 0.5
            found.append(judge(report, f"{name}: {said}", points, 200, steepest))
    if found:
        show(report, found, "registrations.svg", "One of many registrations of a plugin")
    if not only:
        count = 100_000 // fewer
        left = await emitters(count)
        what = f"left by {count:,} names, each used once through `bus.emitter`"
        report.goals("memory", [report.goal(what, left, "{:.1f} MiB", most=1)])


if __name__ == "__main__":
    script(
        measure,
        seconds=60,
        options=lambda parser: parser.add_argument("--only", default="", help="part of a name"),
    )

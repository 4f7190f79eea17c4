"""What does an emission cost, compared with calls written by hand and with other libraries?

    python benchmarks/dispatch.py [--seconds N] [--quick]

The limit is `r = await h(v)`, `if r is not None: v = r` for one handler after the other, in one
function, without isolation of failures, owners or subscriptions. Peers call the same handlers:
pluggy, blinker and pyee in Python, tapable and hookable in Node where npm can install them.
Handlers answer (`return v + 1`) or observe (return None). Everything runs in one process on one
core; see `_harness.py`. Then the same emission in each of its modes: before its plan is compiled,
with time limits, traced, beside a pinned registry, and so on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import contextvars
import functools
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import _peers
from _harness import CALLS_A_TURN, Batch, Timings, batch, compare, never_hot, pinned
from _plots import Bar, bars
from _report import Report, progress, script

from veko import Bus, Kernel

WARM = 1_200
"""Emissions before timing: past the kernel's threshold for compiling a plan."""
COUNTS = (1, 5, 20)

Handler = Callable[[int], Any]


def answering(is_async: bool) -> Handler:
    """Make a handler that returns another value."""

    async def answer(v: int) -> int:
        return v + 1

    def answer_sync(v: int) -> int:
        return v + 1

    return answer if is_async else answer_sync


def observing(is_async: bool) -> Handler:
    """Make a handler that returns None."""

    async def observe(v: int) -> None:
        pass

    def observe_sync(v: int) -> None:
        pass

    return observe if is_async else observe_sync


def suspending(is_async: bool) -> Handler:
    """Make a handler that suspends once."""
    assert is_async

    async def suspend(v: int) -> int:
        await asyncio.sleep(0)
        return v + 1

    return suspend


FAMILIES = {"answering": answering, "observing": observing}
KINDS: dict[str, Callable[[int], bool]] = {
    "async": lambda i: True,
    "mixed": lambda i: i % 2 == 0,
    "sync": lambda i: False,
}
MOST = {"async": 1.2, "mixed": 1.2, "sync": 1.35}
"""How many times by hand a hot emission may take."""


def by_hand(handlers: Sequence[Handler], limited: bool = False) -> Callable[[int], Awaitable[int]]:
    """Write the chain of some handlers out; with `asyncio.timeout` around each, if asked."""
    lines = [f"def make(timeout, {', '.join(f'h{i}' for i in range(len(handlers)))}):"]
    lines += ["  async def chain(v):"]
    for i, handler in enumerate(handlers):
        call = f"{'await ' if asyncio.iscoroutinefunction(handler) else ''}h{i}(v)"
        lines.append(f"    async with timeout(5): r = {call}" if limited else f"    r = {call}")
        lines.append("    if r is not None: v = r")
    lines += ["    return v", "  return chain"]
    scope: dict[str, Any] = {}
    exec(compile("\n".join(lines), f"<chain of {len(handlers)}>", "exec"), scope)
    made: Callable[[int], Awaitable[int]] = scope["make"](asyncio.timeout, *handlers)
    return made


def subscribed(handlers: Sequence[Handler], timeout: float | None = None) -> Bus:
    """Make a bus whose "event" has some handlers."""
    bus = Bus()
    for handler in handlers:
        bus.on("event", handler, timeout=timeout)
    return bus


async def warm(bus: Bus, expected: int) -> None:
    """Emit until the plan is compiled, and see that the answer is right."""
    for _ in range(WARM):
        assert await bus.emit("event", 1) == expected


# -- hot, beside by hand and peers


async def chains(report: Report, node: _peers.Node | str, seconds: float) -> None:
    """Time emissions with handlers of each family and kind."""
    limits: list[list[str]] = []
    peers: dict[bool, list[list[str]]] = {True: [], False: []}
    shapes = list(itertools.product(FAMILIES.items(), KINDS, COUNTS))
    for (family, make), kind, count in shapes:
        what = f"{count} {kind}, {family}"
        progress(what)
        timings = await compare(
            functools.partial(chain, node, make, kind, count), seconds=seconds / len(shapes)
        )
        limits.append(limit_row(report, what, timings, MOST[kind]))
        if kind != "mixed":
            others = [n for n in timings.names if n not in ("hand", "emitter", "name")]
            peers[kind == "async"].append(peer_row(report, what, timings, others))
    report.table(["an emission", "by hand, ns", "hot (fastest)", "goal", "by name", "goal"], limits)
    report.part("dispatch: peers")
    for kind, rows in (("async", peers[True]), ("sync", peers[False])):
        if rows:
            names = await _names(node, kind)
            report.table([f"{kind} peers, in times of Veko's hot emission", *names], rows)


async def chain(
    node: _peers.Node | str, make: Callable[[bool], Handler], kind: str, count: int
) -> dict[str, Batch]:
    """Set up one chain: by hand, on a bus, and with the peers that can call it."""
    handlers = [make(KINDS[kind](i)) for i in range(count)]
    bus = subscribed(handlers)
    await warm(bus, 1 + count if make is answering else 1)
    contenders = {
        "hand": batch("await chain(1)", chain=by_hand(handlers)),
        "emitter": batch("await emit(1)", emit=bus.emitter("event")),
        "name": batch("await bus.emit('event', 1)", bus=bus),
    }
    if kind == "sync":
        contenders |= _peers.for_sync(lambda: make(False), count)
    if kind == "async":
        contenders |= _peers.for_async(lambda: make(True), count)
        if isinstance(node, _peers.Node):
            contenders |= node.peers(make is answering, count)
    return contenders


async def _names(node: _peers.Node | str, kind: str) -> list[str]:
    made = await chain(node, answering, kind, 1)
    return [name for name in made if name not in ("hand", "emitter", "name")]


def limit_row(report: Report, what: str, timings: Timings, most: float) -> list[str]:
    hot = report.goal(f"{what}, hot", timings.ratio("emitter", "hand"), most=most)
    fastest = timings.ratio_of_fastest("emitter", "hand")
    more = timings.difference("name", "emitter")
    named = report.goal(f"{what}, by name", more, "{:+.0f} ns", most=120)
    return [
        what, f"{timings.median('hand'):,.0f}", f"{hot.measured} ({fastest:.2f}×)",
        f"{hot.wanted} {hot.verdict}", named.measured, f"{named.wanted} {named.verdict}",
    ]  # fmt: skip


def peer_row(report: Report, what: str, timings: Timings, names: Sequence[str]) -> list[str]:
    goals = {"blinker send": 10, "pluggy": 10, "blinker send_async": 6}
    cells = [what]
    for name in names:
        ratio = timings.ratio(name, "emitter")
        goal = report.goal(f"{what}, {name}", ratio, "{:.1f}×", least=goals.get(name, 1))
        cells.append(goal.measured if goal.met else f"**{goal.measured}**")
    return cells


# -- the modes of an emission


async def modes(report: Report, seconds: float, count: int = 5) -> None:
    """Time one emission in each of its modes, beside the same by hand."""
    report.part("dispatch: modes")
    rows, drawn = [], []
    for kind in ("async", "sync"):
        progress(f"modes, {count} {kind}")
        async with contextlib.AsyncExitStack() as stack:
            timings = await compare(
                functools.partial(each_mode, stack, kind, count), seconds=seconds / 2
            )
        goals = {"hot": MOST[kind], "cold": {"async": 2, "sync": 3}[kind], "limited, hot": 1.3}
        for name in timings.names:
            ratio, most = timings.ratio(name, "by hand"), goals.get(name)
            what = f"{count} {kind}, {name}"
            goal = None if most is None else report.goal(what, ratio, most=most)
            ends = ["", ""] if goal is None else [goal.wanted, goal.verdict]
            rows.append([what, f"{timings.median(name):,.0f}", f"{ratio:.2f}×", *ends])
            if name != "by hand":
                drawn.append(Bar(what, ratio, most))
        if kind == "sync":
            ratio = timings.ratio("pluggy", "cold")
            rows[-1][3:] = report.goal("pluggy, 5 sync, by cold", ratio, least=1).cells()[2:]
    report.table(["an emission", "ns", "of by hand", "goal", ""], rows)
    title = "One emission in each of its modes, as a multiple of the same by hand"
    report.plot("dispatch.svg", bars(title, drawn, most=10), title)


async def each_mode(stack: contextlib.AsyncExitStack, kind: str, count: int) -> dict[str, Batch]:
    """Set up one chain in all modes."""
    handlers = [answering(KINDS[kind](i)) for i in range(count)]
    hot = subscribed(handlers)
    await warm(hot, 1 + count)
    made = {
        "by hand": batch("await chain(1)", chain=by_hand(handlers)),
        "hot": batch("await emit(1)", emit=hot.emitter("event")),
        "hot, by name": batch("await bus.emit('event', 1)", bus=hot),
        "strict": batch("await bus.emit('event', 1, strict=True)", bus=hot),
        "first": batch("await bus.first('event', 1)", bus=hot),
        "gather": batch("await bus.gather('event', 1)", bus=hot),
    }
    limited = subscribed(handlers, timeout=5)
    await warm(limited, 1 + count)
    made["limited, hot"] = batch("await emit(1)", emit=limited.emitter("event"))
    other = subscribed(handlers)
    await warm(other, 1 + count)
    # Somebody else, in a context of its own, still holds the registry from before a change.
    holder, context = other.pin_live(), contextvars.copy_context()
    context.run(holder.__enter__)
    stack.callback(context.run, holder.__exit__, None, None, None)
    other.on("another", handlers[0])
    made["hot, beside a pinned registry"] = batch("await emit(1)", emit=other.emitter("event"))
    for name, sample in (("hot, unsampled", 0.0), ("hot, sampled", 1.0)):
        emit = await traced(stack, handlers, sample)
        made[name] = emit
    cold = subscribed(handlers)
    made["cold"] = _coldly("await bus.emit('event', 1)", cold)
    cold_limited = subscribed(handlers, timeout=5)
    made["cold, limited"] = _coldly("await bus.emit('event', 1)", cold_limited)
    if kind == "async":
        made["blinker send_async"] = _peers.for_async(lambda: answering(True), count)[
            "blinker send_async"
        ]
    else:
        made["pluggy"] = _peers.for_sync(lambda: answering(False), count)["pluggy"]
    return made


async def traced(
    stack: contextlib.AsyncExitStack, handlers: Sequence[Handler], sample: float
) -> Batch:
    """Set the chain up in a kernel with tracing; inside of a request, as hooks are."""
    from veko_plugins.tracing import Tracing

    kernel = await stack.enter_async_context(Kernel())
    tracing = Tracing()
    options = {"events": {"step": 0}, "max_pending": 2**31, "log_ids": False}
    await kernel.load(tracing, {"sample": sample, **options})

    def load(context: Any) -> None:
        for handler in handlers:
            context.hook("event", handler, timeout=None)

    await kernel.load({"name": "busy", "version": "1.0.0", "load": load})
    await warm(kernel.bus, 1 + len(handlers))
    run = batch("await emit(1)", emit=kernel.bus.emitter("event"))
    took: list[int] = []

    async def request(turns: int) -> None:
        took.append(await run(turns))

    kernel.bus.on("request", request)

    async def timed(turns: int) -> int:
        await kernel.bus.emit("request", turns)
        await tracing.flush()
        return took.pop()

    return timed


def _coldly(statement: str, bus: Bus) -> Batch:
    run = batch(statement, bus=bus)

    async def cold(turns: int) -> int:
        with never_hot():
            return await run(turns)

    return cold


# -- limits, and events of many names


async def time_limits(report: Report, seconds: float) -> None:
    """Time emissions with a limit on each handler, beside `asyncio.timeout` around each."""
    report.part("dispatch: limits")
    rows = []
    each = seconds / (len(COUNTS) + 2)
    for count in COUNTS:
        progress(f"limits, {count}")
        timings = await compare(functools.partial(limited, answering, count), seconds=each)
        added = timings.difference("emitter", "free") / count
        whole = timings.ratio("emitter", "hand")
        rows += [
            report.goal(f"{count} async, added to each by a limit", added, "{:+.0f} ns", most=500),
            report.goal(f"{count} async, limited, beside by hand without", whole, most=1.3),
        ]
    for count in COUNTS[:2]:
        progress(f"limits, {count} that suspend")
        timings = await compare(functools.partial(limited, suspending, count), seconds=each)
        ratio = timings.ratio("emitter", "timeout")
        what = f"{count} that suspend, beside `asyncio.timeout` around each"
        rows.append(report.goal(what, ratio, most=1.3))
    report.goals("a time limit on each handler", rows)


async def limited(make: Callable[[bool], Handler], count: int) -> dict[str, Batch]:
    """Set up a chain whose handlers have a time limit, and the same without."""
    handlers = [make(True) for _ in range(count)]
    bus, free = subscribed(handlers, timeout=5), subscribed(handlers)
    await warm(bus, 1 + count)
    await warm(free, 1 + count)
    return {
        "hand": batch("await chain(1)", chain=by_hand(handlers)),
        "timeout": batch("await chain(1)", chain=by_hand(handlers, limited=True)),
        "free": batch("await emit(1)", emit=free.emitter("event")),
        "emitter": batch("await emit(1)", emit=bus.emitter("event")),
    }


async def in_turn(report: Report, seconds: float, count: int = 5) -> None:
    """Time ten events with chains of one shape, emitted in turn, as an application would."""
    rows = []
    for kind in KINDS:
        progress(f"ten events in turn, {kind}")
        timings = await compare(
            functools.partial(ten_events, kind, count), seconds=seconds / (len(KINDS) + 1)
        )
        what = f"{count} {kind}, ten events in turn, beside by hand"
        rows.append(report.goal(what, timings.ratio("emitter", "hand"), most=MOST[kind]))
    timings = await compare(silence, seconds=seconds / (len(KINDS) + 1))
    for name, how in (("name", "by name"), ("emitter", "emitter")):
        what = f"no handler, {how}, beside an empty coroutine"
        rows.append(report.goal(what, timings.ratio(name, "empty"), most=2.2))
    report.goals("several events, and none that anyone hears", rows)


async def ten_events(kind: str, count: int) -> dict[str, Batch]:
    """Set up as many events of one shape as a batch has calls in its body."""
    bus = Bus()
    hand, emit = {}, {}
    for number in range(CALLS_A_TURN):
        handlers = [answering(KINDS[kind](i)) for i in range(count)]
        for handler in handlers:
            bus.on(f"event:{number}", handler)
        hand[f"call{number}"] = by_hand(handlers)
        emit[f"call{number}"] = bus.emitter(f"event:{number}")
    for _ in range(WARM):
        for call in emit.values():
            assert await call(1) == 1 + count
    return {"hand": batch("await call#(1)", **hand), "emitter": batch("await call#(1)", **emit)}


async def silence() -> dict[str, Batch]:
    """Set up an event without handlers, and the least that can be awaited."""

    async def empty(value: int) -> int:
        return value

    bus = Bus()
    await warm(bus, 1)
    return {
        "empty": batch("await empty(1)", empty=empty),
        "name": batch("await bus.emit('event', 1)", bus=bus),
        "emitter": batch("await emit(1)", emit=bus.emitter("event")),
    }


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure all of it."""
    seconds = given.seconds
    with _peers.Node.start() as node, pinned():
        await chains(report, node, seconds * 0.6)
        if not isinstance(node, _peers.Node):
            report.say(f"tapable and hookable were not measured: {node}.")
        else:
            report.say(f"{node.version}.")
        if absent := _peers.missing():
            report.say(f"Not installed, so not measured: {', '.join(absent)}.")
        await modes(report, seconds * 0.2)
        await time_limits(report, seconds * 0.1)
        await in_turn(report, seconds * 0.1)


if __name__ == "__main__":
    script(measure, seconds=40)

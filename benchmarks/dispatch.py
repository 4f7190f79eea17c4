"""What does an emission cost, compared with calls written by hand and with other libraries?

    python benchmarks/dispatch.py [--quick]

The limit is `r = await h(v)`, `if r is not None: v = r` for one handler after the other, in one
function, without isolation of failures, owners or subscriptions. Peers call the same handlers.
Handlers answer (`return v + 1`) or observe (return None). Everything runs in one process on one
core; see `_harness.py`. The output shows each figure with its goal, met or missed.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import platform
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import _peers
from _harness import CALLS_A_TURN, Batch, Timings, batch, compare, pin, table

from veko import Bus

WARM = 1_200
"""Emissions before timing: past the kernel's threshold for compiling a plan."""

Handler = Callable[[int], Any]


class Row(NamedTuple):
    """A figure, and what it should be."""

    what: str
    measured: str
    goal: str
    met: bool

    def cells(self) -> list[str]:
        return [self.what, self.measured, self.goal, "met" if self.met else "**missed**"]


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


async def chains(
    node: _peers.Node | str, seconds: float, counts: Sequence[int]
) -> tuple[list[Row], list[list[str]], list[Row]]:
    """Time emissions with handlers of each family and kind."""
    limits: list[Row] = []
    times: list[list[str]] = []
    peers: list[Row] = []
    ours = ("hand", "emitter", "name")
    for (family, make), kind, count in itertools.product(FAMILIES.items(), KINDS, counts):
        timings = await compare(functools.partial(chain, node, make, kind, count), seconds=seconds)
        what = f"{count} {kind}, {family}"
        limits += limit_rows(what, timings, 1.35 if kind == "sync" else 1.2)
        times.append([what, *(f"{timings.median(name):,.0f}" for name in ours)])
        peers += peer_rows(what, timings, [name for name in timings.names if name not in ours])
    return limits, times, peers


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


def limit_rows(what: str, timings: Timings, goal: float) -> Iterator[Row]:
    ratio, fastest = timings.ratio("emitter", "hand"), timings.ratio_of_fastest("emitter", "hand")
    yield Row(what, f"{ratio:.2f}× ({fastest:.2f}×)", f"≤ {goal}×", ratio <= goal)
    more = timings.difference("name", "emitter")
    yield Row(f"{what}: by name", f"{more:+.0f} ns", "≤ +120 ns", more <= 120)


def peer_rows(what: str, timings: Timings, names: Sequence[str]) -> Iterator[Row]:
    goals = {"blinker send": 10, "pluggy": 10, "blinker send_async": 6}
    for name in names:
        ratio = timings.ratio(name, "emitter")
        goal = goals.get(name, 1)
        most = timings.ratio(name, "hand")
        yield Row(
            f"{what}: {name}, {timings.median(name):,.0f} ns",
            f"{ratio:.1f}× ({timings.ratio_of_fastest(name, 'emitter'):.1f}×), by hand {most:.1f}×",
            f"≥ {goal}×" if goal > 1 else "> 1×",
            ratio >= goal if goal > 1 else ratio > 1,
        )


async def time_limits(seconds: float, counts: Sequence[int]) -> list[Row]:
    """Time emissions with a limit on each handler, beside `asyncio.timeout` around each."""
    rows: list[Row] = []
    for count in counts:
        timings = await compare(functools.partial(limited, answering, count), seconds=seconds)
        added = timings.difference("emitter", "free") / count
        theirs = timings.difference("timeout", "hand") / count
        cheaper, whole = theirs / added, timings.ratio("timeout", "emitter")
        beside = f"{count}: that beside asyncio.timeout (+{theirs:,.0f} ns a handler)"
        rows += [
            Row(f"{count}: a handler", f"+{added:.0f} ns", "≤ +500 ns", added <= 500),
            Row(beside, f"{cheaper:.1f}× cheaper", "≥ 10×", cheaper >= 10),
            Row(f"{count}: the whole emission", f"{whole:.1f}× cheaper", "≥ 10×", whole >= 10),
        ]
    for count in counts[:2]:
        timings = await compare(functools.partial(limited, suspending, count), seconds=seconds)
        ratio = timings.ratio("emitter", "timeout")
        fastest = timings.ratio_of_fastest("emitter", "timeout")
        shown = f"{ratio:.2f}× ({fastest:.2f}×)"
        rows.append(Row(f"{count} that suspend", shown, "≤ 1.3×", ratio <= 1.3))
    return rows


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


async def in_turn(seconds: float, count: int = 5) -> list[Row]:
    """Time ten events with chains of one shape, emitted in turn, as an application would."""
    rows: list[Row] = []
    for kind in KINDS:
        timings = await compare(functools.partial(ten_events, kind, count), seconds=seconds)
        goal = 1.35 if kind == "sync" else 1.2
        ratio, fastest = (
            timings.ratio("emitter", "hand"),
            timings.ratio_of_fastest("emitter", "hand"),
        )
        what = f"{count} {kind}, ten events in turn"
        rows.append(Row(what, f"{ratio:.2f}× ({fastest:.2f}×)", f"≤ {goal}×", ratio <= goal))
    return rows


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


async def nobody(seconds: float) -> list[Row]:
    """Time emissions that nobody hears."""
    timings = await compare(silence, seconds=seconds)
    rows = []
    for name, what in (("name", "by name"), ("emitter", "emitter")):
        ratio, fastest = timings.ratio(name, "empty"), timings.ratio_of_fastest(name, "empty")
        shown = f"{ratio:.2f}× ({fastest:.2f}×) an empty coroutine"
        rows.append(Row(f"no handler, {what}", shown, "≤ 2.2×", ratio <= 2.2))
    return rows


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


async def main(seconds: float, counts: Sequence[int]) -> None:
    began = time.perf_counter()
    with _peers.Node.start() as node:
        pinned = pin()
        timed = (
            len(FAMILIES) * len(KINDS) * len(counts)
            + len(KINDS)
            + len(counts)
            + len(counts[:2])
            + 1
        )
        each = seconds / timed
        limits, times, peers = await chains(node, each, counts)
        limits += await in_turn(each)
        timed_out = await time_limits(each, counts)
        unheard = await nobody(each)
    head = ["median of rounds (fastest by fastest)", "measured", "goal", ""]
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {pinned}. {_versions()}."
    )
    print(f"Node: {node.version if isinstance(node, _peers.Node) else node}.")
    if absent := _peers.missing():
        print(f"Not installed, so left out: {', '.join(absent)}.")
    print("\n### Beside the same calls written out by hand\n")
    print(table(head, [row.cells() for row in limits + unheard]))
    print("\n### With a time limit on each handler\n")
    print(table(head, [row.cells() for row in timed_out]))
    print("\n### How many times slower peers are\n")
    print(table(head, [row.cells() for row in peers]))
    print("\n### Medians in ns\n")
    print(table(["handlers", "by hand", "emitter", "by name"], times))
    every = limits + unheard + timed_out + peers
    met = sum(row.met for row in every)
    print(f"\n{met} of {len(every)} goals met, in {time.perf_counter() - began:.0f} s.")


def _versions() -> str:
    found = []
    for name in ("veko", "blinker", "pluggy", "pyee", "apluggy"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less than 15 s, and less exact")
    quick = parser.parse_args().quick
    asyncio.run(main(5 if quick else 70, (1, 5, 20)))

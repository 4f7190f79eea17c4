"""Does the work grow with what a plugin registers, and do others get their turn meanwhile?

The limit is the shape itself: a load, and an unload, is linear in what it registers, so the time of
one registration stays the same from the smallest load to the largest. One more task, route or hook
costs the same however many there are, apart from copying a dict. `held` is the longest time for
which a task that wants every turn of the loop got none.

`curves` shows what one change costs among more and more of something: each must be flat, or grow
by what copying a dict takes, 0.02 µs a key.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import contextvars
import gc
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

from _harness import pin, table

from veko import Bus, Context, Handle, Kernel
from veko_plugins.http import Routes

Verb = Callable[[Any, int], Handle]
_MORE = 200


async def wait() -> None:
    await asyncio.Event().wait()


def answer(id: str) -> str:
    return id


def hear(value: object) -> None:
    return None


VERBS: dict[str, tuple[Verb, tuple[int, ...]]] = {
    "spawn": (lambda context, n: context.spawn(wait), (1_000, 5_000, 20_000)),
    "routes": (
        lambda context, n: context.add_route("GET", f"/r{n}/{{id}}", answer),
        (1_000, 10_000, 50_000),
    ),
    "hooks, one event": (lambda context, n: context.hook("x", hear), (1_000, 10_000, 100_000)),
    "hooks, an event each": (
        lambda context, n: context.hook(f"x{n}", hear),
        (1_000, 10_000, 100_000),
    ),
    "services": (lambda context, n: context.provide(f"s{n}", n), (1_000, 10_000, 100_000)),
}


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


async def measure(verb: Verb, count: int) -> list[float]:
    """Return seconds: load, its longest hold, one more, cancelling it, unload, its longest hold."""
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

    async def more() -> list[Handle]:
        handles = [verb(contexts[0], count + number) for number in range(_MORE)]
        for handle in handles:
            await handle
        return handles

    async with Kernel(timeout=600) as kernel:
        await kernel.load(Routes("asgi"))
        loaded, loading = await held(live(kernel))
        begin = time.perf_counter()
        handles = await more()
        added = (time.perf_counter() - begin) / _MORE
        begin = time.perf_counter()
        for handle in handles:
            handle.cancel()
        cancelled = (time.perf_counter() - begin) / _MORE
        unloaded, unloading = await held(kernel.unload("p"))
    return [loaded, loading, added, cancelled, unloaded, unloading]


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


# -- curves: the microseconds of one change, or of one of many emissions


async def _median(change: Callable[[], Any], back: Callable[[], Any] | None = None) -> float:
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        done = change()
        if isinstance(done, Awaitable):
            await done
        times.append(time.perf_counter() - begin)
        if back is not None:
            await back()
    return statistics.median(times) * 1e6


async def _subscribing(bus: Bus) -> float:
    return await _median(lambda: bus.on("new", hear).cancel()) / 2


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
    bus, pins = Bus(), []
    for _ in range(count):
        pin = contextlib.ExitStack()
        pin.enter_context(bus.pin_live())
        pins.append(pin)
        bus.on("x", hear).cancel()
    begin = time.perf_counter()
    for pin in pins:
        pin.close()
    return (time.perf_counter() - begin) / count * 1e6


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


def among_plugins(verb: str) -> Callable[[int], Awaitable[float]]:
    def plugin(number: int) -> dict[str, Any]:
        def load(context: Context) -> None:
            context.hook(f"x{number}", hear)

        return {"name": f"p{number}", "version": "1.0.0", "load": load}

    async def measured(count: int) -> float:
        async with Kernel(timeout=600) as kernel:
            for number in range(count):
                await kernel.load(plugin(number))
                await kernel.bus.emit(f"x{number}", 1)
            gc.collect()
            if verb == "reload":
                return await _median(lambda: kernel.reload(plugin(1)))
            if verb == "toggle":
                off, on = (lambda: kernel.toggle("p1", False)), lambda: kernel.toggle("p1", True)
                return await _median(off, on)
            return await _median(lambda: kernel.unload("p1"), lambda: kernel.load(plugin(1)))

    return measured


CURVES: dict[str, tuple[Callable[[int], Awaitable[float]], tuple[int, ...]]] = {
    "bus.on, after dynamic names": (after_dynamic_names, (100, 1_000, 4_000)),
    "bus.on, among emitted events": (among_emitted_events, (100, 1_000, 10_000)),
    "bus.on, among emitters": (among_emitters, (100, 1_000, 10_000)),
    "emissions that end on retired plans": (ending_on_retired_plans, (100, 1_000, 3_000)),
    "release of pinned registries": (releasing_pins, (100, 1_000)),
    "an emission beside pinned registries": (emitting_while_pinned, (0, 1, 100)),
    **{f"{verb}, among plugins": (among_plugins(verb), (100, 1_000, 5_000))
       for verb in ("reload", "toggle", "unload")},
}  # fmt: skip


async def curves() -> str:
    rows = []
    for name, (curve, counts) in CURVES.items():
        for count in counts:
            rows.append([name, f"{count:,}", f"{await curve(count):,.1f}"])
    return table(["one change", "among", "µs"], rows)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave out the largest")
    parser.add_argument("verbs", nargs="*", help=f"of {', '.join(VERBS)}, curves")
    arguments = parser.parse_args()
    print(pin())
    if not arguments.verbs or "curves" in arguments.verbs:
        print(await curves(), "\n")
    if arguments.verbs == ["curves"]:
        return
    rows = []
    for name, (verb, counts) in VERBS.items():
        if arguments.verbs and name not in arguments.verbs:
            continue
        for count in counts[:-1] if arguments.quick else counts:
            gc.collect()
            loaded, loading, added, cancelled, unloaded, unloading = await measure(verb, count)
            rows.append(
                [
                    name, f"{count:,}", f"{loaded:.2f}", f"{loaded / count * 1e6:.1f}",
                    f"{loading * 1e3:.0f}", f"{added * 1e6:.0f}", f"{cancelled * 1e6:.0f}",
                    f"{unloaded:.2f}", f"{unloaded / count * 1e6:.1f}", f"{unloading * 1e3:.0f}",
                ]
            )  # fmt: skip
    head = [
        "", "number", "load, s", "one, µs", "held, ms", "one more, µs", "cancel one, µs",
        "unload, s", "one, µs", "held, ms",
    ]  # fmt: skip
    print(table(head, rows))
    for count in (10_000, 100_000):
        print(f"{count:,} names used through `bus.emitter`: {await emitters(count):.1f} MiB left")


if __name__ == "__main__":
    asyncio.run(main())

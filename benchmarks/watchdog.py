"""What does the watchdog cost?

    python benchmarks/watchdog.py [--seconds N] [--quick]

Idle: the processor time of a process whose loop does nothing but answer the watchdog. Busy: the
processor time of the watchdog's thread while the loop emits without end; and how many emissions of
five handlers a loop completes in a second of processor time, its threads' included, if it yields
after each hundred; with and without the watchdog, in turns of a fifth of a second. The last is
noisy. The goal is half a percent.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from typing import Any

from _harness import pinned
from _report import Report, script

from veko import Kernel
from veko_plugins.watchdog import Watchdog

TURN = 0.2


def load(context: Any) -> None:
    for _ in range(5):

        async def observe(value: int) -> None:
            return None

        context.hook("tick", observe, timeout=None)


async def idle(seconds: float) -> float:
    """Return the share of a core that watching takes while nothing happens, in percent."""
    begin = time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - begin) / seconds * 100


async def turn(kernel: Kernel) -> float:
    """Emit for a turn."""
    emit = kernel.bus.emitter("tick")
    for _ in range(2_000):  # loading and unloading have made its plan cold
        await emit(1)
    done, begin = 0, time.process_time()
    while time.process_time() - begin < TURN:
        for _ in range(100):
            await emit(1)
        done += 100
        await asyncio.sleep(0)
    return done / (time.process_time() - begin)


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure it idle, then busy."""
    seconds, rounds = given.seconds / 4, max(2, round(given.seconds))
    with pinned():
        await _measure(report, seconds, rounds)


async def _measure(report: Report, seconds: float, rounds: int) -> None:
    async with Kernel() as kernel:
        await kernel.load({"name": "guest", "version": "1.0.0", "load": load})
        without = await idle(seconds)
        for _ in range(3):
            await turn(kernel)
        ratios = []
        for _ in range(rounds):
            off = await turn(kernel)
            await kernel.load(Watchdog())
            on = await turn(kernel)
            await kernel.unload("watchdog")
            ratios.append(on / ((off + await turn(kernel)) / 2))
        await kernel.load(Watchdog())
        watched = await idle(seconds)
        thread = next(one for one in threading.enumerate() if one.name == "veko-watchdog")
        clock = time.pthread_getcpuclockid(thread.ident or 0)
        spent, begin = time.clock_gettime(clock), time.perf_counter()
        while time.perf_counter() - begin < seconds:
            await turn(kernel)
        own = (time.clock_gettime(clock) - spent) / (time.perf_counter() - begin) * 100
    lost = (1 - statistics.median(ratios)) * 100
    low, high = ((1 - ratio) * 100 for ratio in statistics.quantiles(ratios, n=4)[::-2])
    report.goals(
        "the watchdog",
        [
            report.goal("idle, of a core", watched - without, "{:.2f} %", most=0.5),
            report.goal("busy, its thread, of a core", own, "{:.2f} %", most=0.5),
        ],
    )
    report.say(
        f"Busy, it took {lost:.2f} % of the throughput (quartiles {low:.2f} to {high:.2f} %)."
    )


if __name__ == "__main__":
    script(measure, seconds=10)

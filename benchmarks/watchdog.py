"""What does the watchdog cost?

    python benchmarks/watchdog.py [--quick]

Idle: the CPU time of a process whose loop does nothing but answer the watchdog. Busy: how many
emissions of five handlers a loop completes that yields after each hundred, with and without the
watchdog, in turns of a fifth of a second.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import time
from typing import Any

from _harness import pin, table

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
    emit, done, begin = kernel.bus.emitter("tick"), 0, time.perf_counter()
    while time.perf_counter() - begin < TURN:
        for _ in range(100):
            await emit(1)
        done += 100
        await asyncio.sleep(0)
    return done / (time.perf_counter() - begin)


async def measure(seconds: float, rounds: int) -> list[list[str]]:
    """Measure both."""
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
    lost = (1 - statistics.median(ratios)) * 100
    return [
        ["idle, of a core", f"{watched - without:.2f} %"],
        ["busy, of the throughput", f"{lost:.2f} %"],
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the time")
    quick = parser.parse_args().quick
    print(f"{platform.python_implementation()} {platform.python_version()}, {pin()}\n")
    print(table(["the watchdog", "costs"], asyncio.run(measure(*((1, 4) if quick else (10, 40))))))


if __name__ == "__main__":
    main()

"""How long does it take to name what holds an ended generation?

    python benchmarks/holders.py [--seconds N] [--quick] [--objects N]

A plugin leaks one of its functions into a list, into a closure and into a task; `find_leaks` looks
for it in a process that has imported Litestar, as an application has.
`tests/plugins/testing/test_leaks.py` plants the others. There is no peer; the limit is 200 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import litestar  # noqa: F401 - an application's objects
from _report import Report, script

from veko_plugins import PluginManager
from veko_plugins._lib.leaks import find_leaks

GOAL: Final = 200
PLANTED: Final = {
    "a list": "sys.veko_held = [act]",
    "a closure": "sys.veko_held = functools.wraps(print)(lambda: act)",
    "a task": "sys.veko_held = asyncio.get_running_loop().create_task(wait())",
    "nothing": "pass",
}
BODY: Final = """
import asyncio, functools, sys
name = "leaky"
version = "1.0.0"

def act(): ...

async def wait():
    await asyncio.sleep(3600)

def load(context):
    context.hook("x", lambda value: value)
    {}
"""


class _Other:
    def __init__(self, number: int) -> None:
        self.items = [number]
        self.names = {"items": self.items}


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Plant each, and look for it."""
    logging.disable(logging.CRITICAL)
    others = [_Other(number) for number in range(given.objects // 3)]  # of a large application
    root = Path(tempfile.mkdtemp())  # find_leaks may look at its files until the end
    rows: list[list[str]] = []
    async with PluginManager(root=root, storage="none", watchdog=0) as manager:
        for what, code in PLANTED.items():
            walls, cpus, names = [], [], []
            for _ in range(max(2, round(given.seconds * 2))):
                file = root / "leaky.py"
                file.write_text(BODY.format(code))
                await manager.load_plugin(file)
                await manager.unload_plugin("leaky")
                for _ in range(30):
                    await asyncio.sleep(0)
                wall, cpu = time.perf_counter(), time.thread_time()
                names = [leak.holder for leak in find_leaks("leaky", source=file)]
                walls.append((time.perf_counter() - wall) * 1000)
                cpus.append((time.thread_time() - cpu) * 1000)
                held = vars(sys).pop("veko_held", None)
                if isinstance(held, asyncio.Task):
                    held.cancel()
                    await asyncio.wait([held])
                del held
            goal = report.goal(f"naming {what}", statistics.median(walls), "{:.0f} ms", most=GOAL)
            cpu = f"{statistics.median(cpus):.0f} ms"
            rows.append([*goal.cells(), cpu, ", ".join(names) or "nothing"])
    report.table(["held by", "measured", "goal", "", "of the processor", "found"], rows)
    report.say(f"{len(gc.get_objects()):,} objects were in the process.")
    others.clear()


if __name__ == "__main__":
    script(
        measure,
        seconds=5,
        options=lambda parser: parser.add_argument(
            "--objects", type=int, default=0, help="more objects in the process"
        ),
    )

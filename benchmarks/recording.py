"""What does the flight recorder cost an emission, when it records and when it does not?

    python benchmarks/recording.py

Counts instructions under callgrind, as `instructions.py` does, so the clock has no say; the time is
what they took at best of several runs in this process. "off" is an application that has the
recorder and has stopped it; it must cost what an application without one costs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any, Final

CALLS: Final = 2000
SHORT: Final = 300
"""Emissions that are timed together: short enough to run undisturbed on a busy machine."""
PAYLOADS: Final[dict[str, tuple[Any, ...]]] = {
    "a number": (1,),
    "a text and a number": ("order", 7),
    "a dict of 3": ({"id": 7, "item": "pen", "total": 9.5},),
    "a dict of 10 with a list": (
        {**{f"field{n}": n for n in range(9)}, "items": ["a", "b", "c", "d"]},
    ),
}
MODES: Final = ("without", "off", "on")


async def run(mode: str, payload: str, calls: int) -> float:
    """Emit so often in an application; return the time of one emission, in seconds."""
    from veko_plugins import PluginManager

    args = PAYLOADS[payload]
    sections = (
        {} if mode == "without" else {"recording": {"control": False, "always": mode == "on"}}
    )
    with tempfile.TemporaryDirectory() as folder:
        manager = PluginManager(
            root=folder, adapter=None, auto_load=False, storage="memory:", plugins=sections,
            enable_metrics=False, watchdog=0,
        )  # fmt: skip
        async with manager:

            def load(context: Any) -> None:
                context.hook("sale", handle)

            async def handle(*_: Any) -> None:
                return None

            await manager.load_plugin({"name": "shop", "version": "1.0.0", "load": load})
            emit = manager.bus.emitter("sale")
            for _ in range(1500):
                await emit(*args)
            best = float("inf")
            for _ in range(1 if calls <= CALLS else calls // SHORT):
                count = min(calls, SHORT) if calls > CALLS else calls
                began = time.perf_counter()
                for _ in itertools.repeat(None, count):
                    await emit(*args)
                best = min(best, (time.perf_counter() - began) / max(count, 1))
            return best


def instructions(mode: str, payload: str, calls: int) -> int:
    """Return how many instructions a process takes that emits so often."""
    command = [
        "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
        sys.executable, __file__, "--run", mode, payload, str(calls),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=900, check=False
    )
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"{mode}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return int(found[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--time", action="store_true", help="measure time only")
    asked = parser.parse_args()
    if asked.run:
        asyncio.run(run(asked.run[0], asked.run[1], int(asked.run[2])))
        return 0
    counts = not asked.time
    if counts and not shutil.which("valgrind"):
        print("recording.py needs valgrind, or --time (apt-get install valgrind).", file=sys.stderr)
        return 1
    print(
        "| payload | recorder | instructions | added | µs | added µs |\n|---|---|---|---|---|---|"
    )
    for payload in PAYLOADS:
        base, base_time = 0, 0.0
        for mode in MODES:
            took = asyncio.run(run(mode, payload, 60_000)) * 1e6
            count = 0
            if counts:
                few, more = instructions(mode, payload, 0), instructions(mode, payload, CALLS)
                count = round((more - few) / CALLS)
            if mode == "without":
                base, base_time = count, took
            added = f"{took - base_time:+.2f}"
            print(f"| {payload} | {mode} | {count:,} | {count - base:+,} | {took:.2f} | {added} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

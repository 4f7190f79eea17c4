"""What does the flight recorder cost an emission, when it records and when it does not?

    python benchmarks/recording.py [--seconds N] [--quick]

The limit is an application without the recorder. "off" is one that has the recorder and has stopped
it; it must cost the same. There is no peer. `instructions.py --only recorder` counts the same
emissions in instructions.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from _harness import Batch, batch, compare, pinned
from _report import Report, progress, script

WARM: Final = 1_200
"""Emissions before timing: past the kernel's threshold for compiling a plan."""
PAYLOADS: Final[dict[str, tuple[Any, ...]]] = {
    "a number": (1,),
    "a text and a number": ("order", 7),
    "a dict of 3": ({"id": 7, "item": "pen", "total": 9.5},),
    "a dict of 10 with a list": (
        {**{f"field{n}": n for n in range(9)}, "items": ["a", "b", "c", "d"]},
    ),
}
MODES: Final = ("without", "off", "on")


@contextlib.asynccontextmanager
async def emitting(mode: str) -> AsyncIterator[Callable[..., Awaitable[object]]]:
    """Give the emitter of an event that one plugin hooks."""
    from veko_plugins import PluginManager

    sections = (
        {} if mode == "without" else {"recording": {"control": False, "always": mode == "on"}}
    )
    with tempfile.TemporaryDirectory() as folder:
        manager = PluginManager(
            root=folder, adapter=None, auto_load=False, storage="memory:", plugins=sections,
            enable_metrics=False, watchdog=0,
        )  # fmt: skip

        def load(context: Any) -> None:
            context.hook("sale", handle)

        async def handle(*_: Any) -> None:
            return None

        async with manager:
            await manager.load_plugin({"name": "shop", "version": "1.0.0", "load": load})
            yield manager.bus.emitter("sale")


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure each payload."""
    rows = []
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(pinned())
        emits = {mode: await stack.enter_async_context(emitting(mode)) for mode in MODES}
        for payload, args in PAYLOADS.items():
            progress(payload)

            async def make(args: tuple[Any, ...] = args) -> dict[str, Batch]:
                for emit in emits.values():
                    for _ in range(WARM):
                        await emit(*args)
                return {
                    mode: batch("await emit(*args)", emit=emit, args=args)
                    for mode, emit in emits.items()
                }

            times = await compare(make, seconds=given.seconds / len(PAYLOADS), lives=1)
            off, on = (times.difference(mode, "without") / 1000 for mode in ("off", "on"))
            goal = report.goal(f"{payload}, recorder off", off, "{:+.2f} µs", most=0.05)
            cells = [goal.measured, goal.wanted, goal.verdict, f"{on:+.2f} µs"]
            rows.append([payload, f"{times.median('without') / 1000:.2f} µs", *cells])
    head = ["without", "off", "goal", "", "recording"]
    report.table(["an emission of", *head], rows)


if __name__ == "__main__":
    script(measure, seconds=6)

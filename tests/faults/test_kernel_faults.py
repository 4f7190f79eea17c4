"""Faults of plugins that must not become the host's: exits, floods, leaks over many lives."""

import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from veko import Kernel

HOST = """
import sys, anyio
from veko import Kernel, Plugin

def leave(*args): raise SystemExit(3)
async def leave_later(*args):
    await anyio.sleep(0)
    sys.exit(4)

class Leaver(Plugin):
    name, version = "leaver", "1"
    def load(self, context):
        for event in ("x", "error:handle", "plugin:error", "plugin:loaded", "plugin:unloaded"):
            context.hook(event, leave)
            context.hook(event, leave_later)
        context.spawn(leave_later)
        context.every(0.001, leave)
    def deactivate(self): sys.exit(5)
    def unload(self): sys.exit(6)

class AtLoad(Plugin):
    name, version = "at-load", "1"
    def load(self): sys.exit(7)

async def main():
    async with Kernel() as kernel:
        await kernel.load(Leaver)
        for _ in range(1500):
            assert await kernel.bus.emit("x", "value") == "value"
        try:
            await kernel.load(AtLoad)
        except Exception as error:
            print(type(error).__name__)
        await anyio.sleep(0.01)
    print("the host lives")

import logging
logging.disable()
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_plugin_ends_its_host(backend: str, tmp_path: Path) -> None:
    program = tmp_path / "host.py"
    program.write_text(HOST)
    ran = subprocess.run(
        [sys.executable, "-W", "error", program, backend],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == ["LoadError", "the host lives"]


@pytest.mark.anyio
async def test_many_lives_leave_no_object() -> None:
    def load(context: Any) -> None:
        context.hook("x", lambda value: value + 1)
        context.hook("**", lambda value: None)
        context.provide("s", object())
        context.attach("extra", lambda context: object())
        context.spawn(anyio.sleep_forever)

    async def live(kernel: Kernel) -> None:
        await kernel.load({"name": "p", "version": "1", "load": load})
        assert await kernel.bus.emit("x", 0) == 1
        await kernel.toggle("p")
        await kernel.toggle("p")
        await kernel.reload({"name": "p", "version": "2", "load": load})
        await kernel.unload("p")

    async def least(kernel: Kernel) -> int:
        """Count the objects after some lives, at the best moment: loops keep cancelled timers."""
        counts: list[int] = []
        for _ in range(5):
            await live(kernel)
            gc.collect()
            counts.append(len(gc.get_objects()))
        return min(counts)

    async with Kernel() as kernel:
        for _ in range(20):
            await live(kernel)
        # Frozen objects are not counted: what tests before this one have left in the process, and
        # free or grow at a moment of their own (caches, records of logs, ending threads).
        gc.collect()
        gc.freeze()
        try:
            before, threads = await least(kernel), threading.active_count()
            for _ in range(200):
                await live(kernel)
            after = await least(kernel)
        finally:
            gc.unfreeze()
        # A life that leaked would leave hundreds.
        assert after - before < 100
        assert threading.active_count() <= threads
        assert kernel.records() == ()


@pytest.mark.anyio
async def test_a_flood_of_posted_events_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    seen = 0

    def hear(number: int) -> None:
        nonlocal seen
        seen += 1

    async with Kernel() as kernel:
        kernel.bus.on("x", hear)
        for number in range(15_000):
            kernel.post("x", number)
    assert seen == 10_000
    assert "5000 posted events were dropped" in caplog.text


@pytest.mark.anyio
async def test_a_plugin_whose_every_part_fails_goes_without_a_trace() -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("on purpose")

    def load(context: Any) -> None:
        for event in ("x", "plugin:*", "error:handle", "*:error", "config:validate", "log"):
            context.hook(event, fail)
        context.intercept(lambda event, subscription, call: call)
        context.spawn(fail)
        context.log("info", "here")

    more = {"deactivate": fail, "unload": fail}
    async with Kernel() as kernel:
        await kernel.load({"name": "wreck", "version": "1", "load": load, **more})
        await kernel.bus.emit("x")
        kernel.get("wreck")
        await kernel.unload("wreck", force=True)
        assert kernel.records() == ()
        assert not kernel.bus.heard("x")
        assert kernel.registry.entries("pattern") == ()
        await kernel.load({"name": "fine", "version": "1", "load": lambda: None})

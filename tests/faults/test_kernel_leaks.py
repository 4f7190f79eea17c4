"""A thousand lives of a plugin leave nothing: no object, task, registration or memory.

The suite runs `CYCLES` of each; `VEKO_CYCLES=1000` is the whole of it.
"""

import asyncio
import gc
import os
import threading
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from veko import Kernel, Plugin, PluginRecord, as_plugin

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unlogged")]
CYCLES = int(os.environ.get("VEKO_CYCLES", "200"))
WARM = 100
MEBIBYTE = 2**20

SOURCE = """
import anyio
from contextlib import asynccontextmanager

name, version = "p", "1.0.0"

class Thing:
    pass

@asynccontextmanager
async def resource():
    yield Thing()

def export_state():
    return {"count": [0] * 100}

def import_state(state, version):
    global kept
    kept = state

async def load(context):
    global held, opened
    held = context
    async def handler(value):
        await anyio.sleep(0)
        return value + 1
    def broken(value):
        raise ValueError("broken")
    context.hook("x", handler)
    context.hook("x", broken)
    context.hook("**", lambda *args: None)
    context.provide("s", Thing())
    context.attach("extra", lambda context: Thing())
    context.register("thing", "key", Thing())
    context.spawn(anyio.sleep_forever)
    context.every(60, broken)
    opened = await context.enter(resource())

def activate(context):
    context.hook("y", lambda: held)
"""
ABOVE = """
name, version = "above", "1.0.0"

def load(context):
    global below, held
    held, below = context, (context.use("s"), context.extra, context.get_plugin("p").module)
    context.hook("x", lambda value: below and None)
"""


class Lives:
    """Modules of a plugin, each made anew, and weak references to all that came of them."""

    def __init__(self) -> None:
        self.references: list[weakref.ref[Any]] = []

    def module(self, source: str = SOURCE) -> ModuleType:
        made = ModuleType("p")
        exec(compile(source, "<p>", "exec"), vars(made))
        self.references += [weakref.ref(made), weakref.ref(made.load)]
        return made

    def note(self, kernel: Kernel) -> None:
        for record in kernel.records():
            generation = record.current
            assert generation is not None
            for one in (generation, generation.context, generation.scope, generation.plugin):
                self.references.append(weakref.ref(one))

    @property
    def alive(self) -> list[Any]:
        return [one for one in (reference() for reference in self.references) if one is not None]


def memory() -> int:
    """Return the resident memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def standing(kernel: Kernel, threads: set[threading.Thread]) -> dict[str, Any]:
    """Return what there is of everything that a plugin may leave behind.

    Args:
        kernel: The kernel.
        threads: Those of other tests, which may end meanwhile.
    """
    kinds = ("hook", "pattern", "service", "attach", "thing", "event", "interceptor")
    return {
        "entries": {kind: len(kernel.registry.entries(kind)) for kind in kinds},
        "older": list(kernel.bus.older),
        "tasks": len(asyncio.all_tasks()),
        "threads": len(set(threading.enumerate()) - threads),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "records": [record.name for record in kernel.records()],
    }


async def settle(lives: Lives) -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
    if lives.alive:
        gc.collect()


async def use(kernel: Kernel) -> None:
    assert await kernel.bus.emit("x", 0) == 1
    await kernel.bus.emit("y")
    with kernel.pin():
        kernel.use("s")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", ["load and unload", "reload", "reload a group", "fail to reload"])
async def test_many_lives_leave_nothing(how: str) -> None:
    lives, threads = Lives(), set(threading.enumerate())

    async def group(record: PluginRecord) -> Plugin:
        return as_plugin(lives.module(ABOVE))

    async def cycle(kernel: Kernel) -> None:
        if how == "load and unload":
            await kernel.load(lives.module())
            await use(kernel)
            lives.note(kernel)
            await kernel.unload("p")
        elif how == "fail to reload":
            bad = lives.module(SOURCE + "\n\ndef activate(): raise ValueError('broken')\n")
            with pytest.raises(Exception, match="broken"):
                await kernel.reload(bad)
            lives.references.append(weakref.ref(bad.held))
            lives.references.append(weakref.ref(bad.held._generation))
        else:
            lives.note(kernel)
            await kernel.reload(lives.module(), dependents=group)
            await use(kernel)

    async with Kernel() as kernel:
        before = standing(kernel, threads)
        if how != "load and unload":
            await kernel.load(Lives().module())
        if how == "reload a group":
            await kernel.load(Lives().module(ABOVE))
        begun = standing(kernel, threads)
        for number in range(WARM + CYCLES):
            if number == WARM:
                gc.collect()
                resident = memory()
            await cycle(kernel)
            lives.references = [one for one in lives.references if one() is not None]
        grown = memory() - resident
        await settle(lives)
        assert standing(kernel, threads) == begun
        for name in [record.name for record in reversed(kernel.records())]:
            await kernel.unload(name)
        await settle(lives)
        assert lives.alive == []
        assert standing(kernel, threads) == before
        assert grown < 2 * MEBIBYTE, f"{grown / MEBIBYTE:.1f} MiB"

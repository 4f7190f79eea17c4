"""What is left over after many loads, unloads and reloads?

    python benchmarks/leaks.py [--cycles 1000] [--quick]

A plugin of one file and one of a package with submodules, each with hooks, a route, a service, a
task and state, are loaded and unloaded, then reloaded by changing their files, with
`PluginManager`. The limit is nothing; there is no peer. Afterwards every module, class and
context of old generations must be dead; tasks,
threads, file descriptors, subscriptions, routes, services, log handlers, `sys.modules` and
`linecache` must be as before; and the process may grow by 2 MiB after the first tenth.
`tests/faults/test_reload_leaks.py` is the short form.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import linecache
import logging
import os
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from _report import Report, progress, script

from veko_plugins import PluginManager

GOAL: Final = 2.0
BODY: Final = """
class Thing: ...

def load(context):
    import asyncio
    context.hook("ask", lambda value: Thing())
    context.hook("plugin:*", lambda *args: None)
    context.add_route("GET", "/{name}/{{number:int}}", answer)
    context.provide("{name}.thing", Thing())
    context.spawn(asyncio.sleep, 3600)
    seen.append(context)

seen = []

def answer(number: int) -> int:
    return number + {number}
"""


def write(folder: Path, number: int) -> None:
    """Write both plugins as they are in a version."""
    head = f"name = '{{}}'\nversion = '1.0.{number}'\n"
    (folder / "single.py").write_text(
        head.format("single") + BODY.format(name="single", number=number)
    )
    package = folder / "pack"
    (package / "deep").mkdir(parents=True, exist_ok=True)
    (package / "deep" / "__init__.py").write_text(f"number = {number}\nclass Deep: ...\n")
    (package / "part.py").write_text(BODY.format(name="pack", number=number))
    (package / "__init__.py").write_text(
        head.format("pack") + "from .deep import Deep\nfrom .part import Thing, load, seen\n"
    )


class Watched:
    """References to what must die, and what is counted."""

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager
        self._folder = str(manager.options.directory)
        self._old: list[weakref.ref[Any]] = []

    def note(self) -> None:
        """Watch the generations that run."""
        for name in ("single", "pack"):
            record = self._manager.get_plugin(name)
            if record is not None:
                module = record.module
                parts = (module, module.Thing, module.load, *module.seen, record.plugin)
                self._old += [weakref.ref(part) for part in parts]

    def alive(self) -> int:
        """Return how many of those noted live."""
        gc.collect()
        self._old = [reference for reference in self._old if reference() is not None]
        return len(self._old)

    def counts(self) -> dict[str, int]:
        """Count what could be left behind."""
        registry, kernel = self._manager.kernel.registry, self._manager.kernel
        return {
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "subscriptions": sum(map(len, self._manager.hooks.values())),
            "routes": len(registry.entries("route")),
            "services": len(registry.entries("service")),
            "plugins": len(kernel.records()),
            "log handlers": len(logging.getLogger("veko").handlers),
            "loggers": len(logging.Logger.manager.loggerDict),
            "sys.modules": len(sys.modules),
            "linecache": sum(file.startswith(self._folder) for file in linecache.cache),
            "meta_path": len(sys.meta_path),
            "modules of generations": sum(map(_is_of_generation, gc.get_objects())),
        }


def _is_of_generation(found: object) -> bool:
    return isinstance(found, ModuleType) and found.__name__.startswith("veko_generation.")


def memory() -> float:
    """Return the resident memory of this process, in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def settle(manager: PluginManager) -> None:
    """Wait until posted events are emitted and retirements have ended."""
    for record in manager.kernel.records():
        for retirement in tuple(record.retiring):
            await retirement.done.wait()
    for _ in range(20):
        await asyncio.sleep(0)


async def repeat(
    report: Report,
    what: str,
    cycles: int,
    manager: PluginManager,
    cycle: Callable[[int], Awaitable[None]],
    *,
    replaces: bool = True,
) -> list[str]:
    """Do it so many times; returns a row of what has changed.

    Args:
        report: Notes what should not be left.
        what: What it is.
        cycles: How often.
        manager: The manager.
        cycle: Does it once.
        replaces: Whether that ends the generations that run.
    """
    progress(f"{what}, {cycles} times")
    watched = Watched(manager)
    before: dict[str, int] = {}
    grown = 0.0
    begin = time.perf_counter()
    for number in range(cycles):
        if number == min(100, cycles // 10):
            await settle(manager)
            grown, before = memory(), watched.counts()
        if replaces:
            watched.note()
        await cycle(number)
    took = time.perf_counter() - begin
    await settle(manager)
    grown, after = memory() - grown, watched.counts()
    left = [f"{key} {after[key] - before[key]:+d}" for key in before if after[key] != before[key]]
    alive = watched.alive()
    report.goal(f"{what}: old modules, classes and contexts alive", alive, "{:g}", most=0)
    report.goal(f"{what}: kinds of things left over", len(left), "{:g}", most=0)
    report.goal(f"{what}: growth of the process", grown, "{:.2f} MiB", most=GOAL)
    each = f"{took / cycles * 1000:.1f}"
    return [what, str(cycles), each, str(alive), ", ".join(left) or "nothing", f"{grown:+.2f}"]


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Load, unload and reload."""
    cycles = given.cycles or max(3, round(given.seconds * 20))
    logging.disable(logging.CRITICAL)
    root = Path(tempfile.mkdtemp())
    folder = root / "plugins"
    folder.mkdir()
    write(folder, 0)
    rows: list[list[str]] = []
    async with PluginManager(root=root, storage="none") as manager:

        async def load_and_unload(number: int) -> None:
            for name in ("single", "pack"):
                await manager.unload_plugin(name)
                await manager.load_plugin(name)

        async def reload(number: int) -> None:
            write(folder, number + 1)
            await manager.bus.emit("ask", None)
            for name in ("single", "pack"):
                await manager.reload_plugin(name)

        async def fail(number: int) -> None:
            for name in ("single.py", "pack/part.py"):
                (folder / name).write_text("name = version = 1\nraise ValueError('no')\n")
            for name in ("single", "pack"):
                try:
                    await manager.reload_plugin(name)
                except Exception:
                    continue

        rows.append(await repeat(report, "load and unload", cycles, manager, load_and_unload))
        rows.append(await repeat(report, "reload", cycles, manager, reload))
        rows.append(await repeat(report, "fail to reload", cycles, manager, fail, replaces=False))
    head = ["cycles", "ms each", "old and alive", "left", "MiB"]
    report.table(["two plugins", *head], rows)


if __name__ == "__main__":
    script(
        measure,
        seconds=5,
        options=lambda parser: parser.add_argument("--cycles", type=int, help="of each"),
    )

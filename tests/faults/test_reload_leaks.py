"""What loading, unloading, reloading and failing to reload from files leaves behind: nothing.

`benchmarks/leaks.py` is the long form: a thousand of each, and the memory of the process.
"""

import asyncio
import gc
import linecache
import logging
import os
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from veko_plugins import PluginManager

pytestmark = pytest.mark.anyio
CYCLES = 150
BODY = """
import asyncio

class Thing: ...

seen = []

def load(context):
    seen.append(context)
    context.hook("ask", lambda value: Thing())
    context.hook("plugin:*", lambda *args: None)
    context.add_route("GET", "/{name}/{{number:int}}", answer)
    context.add_middleware(around)
    context.provide("{name}.thing", Thing())
    context.spawn(asyncio.sleep, 3600)
    context.log("info", "here")

async def around(request, call_next):
    return await call_next(request)

def answer(number: int) -> int:
    return number + {number}

def export_state():
    return {number}

def import_state(state, version):
    assert state is not None
"""


def write(folder: Path, number: int) -> None:
    """Write a plugin of one file and a package with submodules, as they are in a version."""
    head = f"name = '{{}}'\nversion = '1.0.{number}'\n"
    body = BODY.format(name="single", number=number)
    (folder / "single.py").write_text(head.format("single") + body)
    package = folder / "pack"
    (package / "deep").mkdir(parents=True, exist_ok=True)
    (package / "deep" / "__init__.py").write_text(f"number = {number}\nclass Deep: ...\n")
    (package / "late.py").write_text("class Late: ...\n")
    (package / "part.py").write_text(BODY.format(name="pack", number=number))
    (package / "__init__.py").write_text(
        head.format("pack") + "from .deep import Deep\nfrom .part import *\n"
        "def ask():\n    from . import late\n    return late.Late()\n"
    )


class Leaks:
    """A manager of both plugins, and what must not outlive their generations."""

    def __init__(self, manager: PluginManager, folder: Path) -> None:
        self.manager = manager
        self.folder = folder
        self.old: list[weakref.ref[Any]] = []

    def note(self) -> None:
        """Note the parts of the generations that run."""
        for name in ("single", "pack"):
            record = self.manager.get_plugin(name)
            assert record is not None
            module = record.module
            parts = [module, module.Thing, module.load, record.plugin, *module.seen]
            parts += [module.ask().__class__, module.Deep] if name == "pack" else []
            self.old += map(weakref.ref, parts)

    async def settle(self) -> None:
        for record in self.manager.kernel.records():
            for retirement in tuple(record.retiring):
                await retirement.done.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        gc.collect()

    def counts(self) -> dict[str, int]:
        """Count what could be left behind."""
        registry = self.manager.kernel.registry
        return {
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "subscriptions": sum(map(len, self.manager.hooks.values())),
            "routes": len(registry.entries("route")),
            "middleware": len(registry.entries("middleware")),
            "services": len(registry.entries("service")),
            "plugins": len(self.manager.kernel.records()),
            "log handlers": len(logging.getLogger("veko").handlers),
            "loggers": len(logging.Logger.manager.loggerDict),
            "sys.modules": len(sys.modules),
            "linecache": sum(file.startswith(str(self.folder)) for file in linecache.cache),
            "meta_path": len(sys.meta_path),
            "modules": sum(
                isinstance(found, ModuleType) and found.__name__.startswith("veko_generation.")
                for found in gc.get_objects()
            ),
        }

    async def nothing_of(self, cycle: Callable[[int], Awaitable[None]]) -> None:
        """Do it again and again; nothing may be left that was not there after a few times."""
        before: dict[str, int] = {}
        for number in range(CYCLES):
            if number == CYCLES // 10:
                await self.settle()
                before = self.counts()
            await cycle(number)
        await self.settle()
        more = {key: n - before[key] for key, n in self.counts().items() if n > before[key]}
        assert more == {}
        assert [one for one in (reference() for reference in self.old) if one is not None] == []


@pytest.fixture
async def leaks(tmp_path: Path) -> AsyncIterator[Leaks]:
    logger = logging.getLogger("veko")
    logger.disabled = True  # pytest keeps what is logged, and with it the errors
    folder = tmp_path / "plugins"
    folder.mkdir()
    write(folder, 0)
    options: dict[str, Any] = {"storage": "none", "adapter": "asgi", "max_retries": 0}
    async with PluginManager(root=tmp_path, **options) as manager:
        yield Leaks(manager, folder)
    logger.disabled = False


async def test_loading_and_unloading_leaves_nothing(leaks: Leaks) -> None:
    async def cycle(number: int) -> None:
        leaks.note()
        for name in ("single", "pack"):
            await leaks.manager.unload_plugin(name)
            await leaks.manager.load_plugin(name)

    await leaks.nothing_of(cycle)


async def test_reloading_leaves_nothing(leaks: Leaks) -> None:
    async def cycle(number: int) -> None:
        leaks.note()
        write(leaks.folder, number + 1)
        await leaks.manager.bus.emit("ask", None)
        for name in ("single", "pack"):
            await leaks.manager.reload_plugin(name)

    await leaks.nothing_of(cycle)


async def test_failing_to_reload_leaves_nothing(leaks: Leaks) -> None:
    broken = ("raise ValueError('no')\n", "import nowhere_at_all\n", "x = (\n", "load = 1\n")
    raises = "real = load\ndef load(context):\n    real(context)\n    raise ValueError('no')\n"

    async def cycle(number: int) -> None:
        write(leaks.folder, number)
        fault = (*broken, raises)[number % 5]
        for name in ("single.py", "pack/part.py"):
            with (leaks.folder / name).open("a") as file:
                file.write(fault)
        for name in ("single", "pack"):
            with pytest.raises(Exception, match=name):
                await leaks.manager.reload_plugin(name)

    await leaks.nothing_of(cycle)

"""Ended generations that something holds: each is found, its holder named with file and line."""

import asyncio
import atexit
import contextlib
import contextvars
import functools
import gc
import importlib.util
import logging
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import pytest

from veko_plugins import PluginManager
from veko_plugins._lib.leaks import Leak, find_leaks

pytestmark = pytest.mark.anyio
HOST = """
import functools
import queue
from concurrent.futures import ThreadPoolExecutor

HELD = []
REGISTRY = {}
QUEUE = queue.Queue()
attribute = None

def watch(callback=None):
    def around():
        return callback()
    return around

def default(value=None):
    return value

class Base:
    known = []

    def __init_subclass__(cls):
        Base.known.append(cls)

class Service:
    def __init__(self):
        self.listeners = []

    @functools.lru_cache
    def compute(self, thing):
        return 1

SERVICE = Service()

async def generate(callback):
    yield callback
"""
HEAD = """
import asyncio, atexit, contextvars, functools, logging, os, signal, sys, threading, weakref
import leak_host as host

name = "leaky"
version = "1.0.0"

class Thing:
    def method(self):
        return 1

class Empty: ...

def act(*args, **kwargs):
    return Thing

def load(context):
    context.hook("go", lambda value: None)
"""


class Planted(NamedTuple):
    """A leak: what `load` does besides, and what the verdict names."""

    code: str
    holder: str
    file: str
    path: str = ""


HELD = "attribute `HELD` of module leak_host"
LEAKS = {
    "global list": Planted("host.HELD.append(act)  # <-", HELD, "host"),
    "instance in a list": Planted(
        "host.HELD.append(Empty())  # <-", HELD, "host", r"\[0\]"
    ),
    "dict": Planted(
        "host.REGISTRY['x'] = act", "attribute `REGISTRY` of module leak_host", "host", "'x'"
    ),
    "closure": Planted(
        "host.attribute = host.watch(act)", "attribute `attribute` of module leak_host", "host",
        "closure",
    ),
    "signal": Planted(
        "signal.signal(signal.SIGUSR2, act)  # <-", "signal handler of SIGUSR2", "plugin"
    ),
    "signal by method": Planted(
        "signal.signal(signal.SIGUSR2, Thing().method)  # <-", "signal handler of SIGUSR2", "plugin"
    ),
    "loop signal": Planted(
        "asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, act)  # <-",
        "the event loop", "plugin",
    ),
    "thread": Planted(
        "thread = threading.Thread(target=wait_for_it, name='lost')\n"
        "    thread.start()",
        "thread 'lost'", "plugin",
    ),
    "lru_cache": Planted(
        "host.SERVICE.compute(Thing())", "class leak_host.Service", "host", "compute"
    ),
    "bound method": Planted(
        "host.SERVICE.listeners.append(Thing().method)", "attribute `SERVICE` of module leak_host",
        "host", "listeners",
    ),
    "traceback": Planted(
        "try:\n        act()['x']\n    except TypeError as error:\n        host.HELD.append(error)",
        HELD, "host", "__traceback__",
    ),
    "task": Planted(
        "asyncio.get_running_loop().create_task(forever(), name='lost')", "task 'lost'", "plugin"
    ),
    "contextvar": Planted(
        "host.VARIABLE.set(act)  # <-", "context variable 'leaky'", "plugin"
    ),
    "async generator": Planted(
        "host.attribute = host.generate(act)", "attribute `attribute` of module leak_host", "host",
        "callback",
    ),
    "atexit": Planted("atexit.register(act)  # <-", "atexit", "plugin"),
    "finalize": Planted(
        "weakref.finalize(host.SERVICE, act)  # <-", "class weakref.finalize", "weakref"
    ),
    "weakref callback": Planted(
        "host.HELD.append(weakref.ref(host.SERVICE, act))", HELD,
        "host", "ReferenceType",
    ),
    "logging handler": Planted(
        "logging.getLogger('leak.host').addHandler(Handler())  # <-", "logger 'leak.host'", "plugin"
    ),
    "call_later": Planted(
        "asyncio.get_running_loop().call_later(60, act)  # <-", "the event loop", "plugin"
    ),
    "subclass registry": Planted(
        "type('Sub', (host.Base,), {'f': act, '__module__': __name__})", "class leak_host.Base",
        "host",
    ),
    "module attribute": Planted(
        "host.attribute = Thing()  # <-", "attribute `attribute` of module leak_host", "host"
    ),
    "sys.modules": Planted(
        "sys.modules['leaky_alias'] = sys.modules[__name__]  # <-", r"sys.modules\['leaky_alias'\]",
        "plugin",
    ),
    "monkeypatch": Planted(
        "host.Service.compute = act", "class leak_host.Service", "host", "compute"
    ),
    "default argument": Planted(
        "host.default.__defaults__ = (act,)", "function leak_host.default", "host", "default"
    ),
    "partial": Planted(
        "host.HELD.append(functools.partial(print, act))", HELD,
        "host", "partial.args",
    ),
    "queue": Planted(
        "host.QUEUE.put(act)", "attribute `QUEUE` of module leak_host", "host", "queue"
    ),
    "executor": Planted(
        "host.POOL = host.ThreadPoolExecutor(1)\n"
        "    host.POOL.submit(host.STOP.wait, 30)\n    host.POOL.submit(act)",
        "attribute `POOL` of module leak_host|running", "host|plugin|threading|thread",
    ),
    "excepthook": Planted("sys.excepthook = act  # <-", "module sys", "plugin"),
    "context": Planted("host.HELD.append(context)", HELD, "host"),
    "singledispatch": Planted(
        "host.DISPATCH.register(Empty)(act)", "attribute `DISPATCH` of module leak_host", "host"
    ),
}  # fmt: skip


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ModuleType]:
    file = tmp_path / "leak_host.py"
    file.write_text(HOST)
    spec = importlib.util.spec_from_file_location("leak_host", file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["leak_host"] = module
    spec.loader.exec_module(module)
    module.STOP, module.VARIABLE = threading.Event(), contextvars.ContextVar("leaky")
    module.DISPATCH = functools.singledispatch(lambda value: None)
    excepthook, usr2 = sys.excepthook, signal.getsignal(signal.SIGUSR2)
    threads = set(threading.enumerate())
    yield module
    module.STOP.set()
    if hasattr(module, "POOL"):
        module.POOL.shutdown()
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
    sys.excepthook = excepthook
    signal.signal(signal.SIGUSR2, usr2)
    logging.getLogger("leak.host").handlers.clear()
    for name in ("leak_host", "leaky_alias"):
        sys.modules.pop(name, None)
    vars(module).clear()
    gc.collect()


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[PluginManager]:
    logger = logging.getLogger("veko")
    logger.disabled = True  # pytest keeps what is logged
    options: dict[str, Any] = {"storage": "none", "adapter": None, "max_retries": 0}
    async with PluginManager(root=tmp_path, watchdog=0, **options) as manager:
        yield manager
    logger.disabled = False


def plugin_with(folder: Path, code: str) -> Path:
    file = folder / "leaky.py"
    more = (
        "\nasync def forever():\n    await asyncio.sleep(3600)\n"
        "\ndef wait_for_it():\n    host.STOP.wait(30)\n"
        "\nclass Handler(logging.Handler): ...\n"
    )
    file.write_text(HEAD + f"    {code}\n" + more)
    return file


async def retire(manager: PluginManager, file: Path) -> list[Leak]:
    await manager.load_plugin(file)
    await manager.unload_plugin("leaky")
    for _ in range(20):
        await asyncio.sleep(0)
    return find_leaks("leaky", source=file)


async def undo() -> None:
    """Let go of what the leaks left in the loop of this test."""
    loop: Any = asyncio.get_running_loop()
    loop.remove_signal_handler(signal.SIGUSR2)
    for handle in loop._scheduled:
        if getattr(handle._callback, "__name__", "") == "act":
            handle.cancel()
    for task in asyncio.all_tasks():
        if task.get_name() == "lost":
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__name__ == "act":
            atexit.unregister(one)


@pytest.mark.parametrize("name", LEAKS)
async def test_a_leak_is_found_and_its_holder_named(
    name: str, manager: PluginManager, tmp_path: Path, host: Any
) -> None:
    planted = LEAKS[name]
    file = plugin_with(tmp_path, planted.code)
    leaks = await retire(manager, file)
    try:
        texts = "\n".join(map(str, leaks))
        assert leaks, "nothing was found"
        matching = [one for one in leaks if re.search(planted.holder, one.holder)]
        assert matching, texts
        leak = matching[0]
        assert leak.generation.startswith("veko_generation.leaky_") or leak.generation == "leaky"
        assert leak.file is not None
        expected = {"host": "leak_host.py", "plugin": "leaky.py"}
        names = {expected.get(one, one) for one in planted.file.split("|")}
        assert leak.file.name in names or leak.file.stem in names, texts
        assert leak.line
        assert planted.path in "".join(leak.path) or re.search(planted.path, str(leak))
        if "# <-" in planted.code:
            lines = file.read_text().splitlines()
            marked = next(i for i, line in enumerate(lines, 1) if "# <-" in line)
            assert leak.planted == f"{file}:{marked}", texts
    finally:
        await undo()


async def test_a_handler_forgets_the_class_of_an_ended_plugin(
    manager: PluginManager, tmp_path: Path, host: Any
) -> None:
    code = "pass\n\nimport msgspec\nclass Settings(msgspec.Struct):\n    x: int = 1\n"
    file = plugin_with(tmp_path, code + "config_schema = Settings\n")
    assert await retire(manager, file) == []


async def test_a_plugin_without_a_leak_is_collected(
    manager: PluginManager, tmp_path: Path, host: Any
) -> None:
    assert await retire(manager, plugin_with(tmp_path, "pass")) == []

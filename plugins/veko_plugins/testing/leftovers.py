"""What a test or a plugin leaves behind: tasks, timers, threads, registrations, modules, handlers.

The idea, after Home Assistant's `verify_cleanup`: note what is there before, compare afterwards,
and name each thing that is new, so a leak is reported where it was made.

Cost: a few hundred microseconds for each of the two looks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from types import ModuleType
from typing import Any, Final

import anyio.lowlevel

from veko import Kernel, Subscription

__all__ = ["Leftovers"]

_POOLS: Final = ("AnyIO worker thread", "asyncio_", "Trio thread", "waitpid-")
"""Threads that the backends keep for the next caller and end by themselves."""
_SETTLE_TURNS: Final = 50
_JOIN_SECONDS: Final = 2.0
_GENERATIONS: Final = "veko_generation"
_SKIPPED: Final = (signal.SIGINT,)  # pytest and runners of loops set it


class Leftovers:
    """Compares what is there now with what was there when this was made.

    Args:
        kernel: The kernel whose registrations are compared too; `None` for no kernel.
    """

    def __init__(self, kernel: Kernel | None = None) -> None:
        self._kernel = kernel
        self._before = self._look()

    async def settled(self) -> list[str]:
        """Wait until nothing new is left, but no longer than what ends by itself needs.

        Tasks get some turns of the loop and no time; threads get two seconds.

        Returns:
            A line for each thing that is left.
        """
        for _ in range(_SETTLE_TURNS):
            if not self.now():
                return []
            await anyio.lowlevel.checkpoint()
        self.join_threads()
        return self.now()

    def join_threads(self) -> None:
        """Wait for threads that are ending."""
        before = self._before["thread"]
        for thread in threading.enumerate():
            ours = thread is threading.current_thread() or thread.name.startswith(_POOLS)
            if id(thread) not in before and not ours:
                thread.join(_JOIN_SECONDS)

    def now(self) -> list[str]:
        """Return a line for each thing that is here now and was not before."""
        found: list[str] = []
        for kind, things in self._look().items():
            before = self._before.get(kind, {})
            found += [f"{kind}: {text}" for key, text in things.items() if key not in before]
        return found

    def _look(self) -> dict[str, dict[object, str]]:
        looks: dict[str, dict[object, str]] = {
            "thread": {
                id(thread): repr(thread.name)
                for thread in threading.enumerate()
                if not thread.name.startswith(_POOLS)
            },
            "signal handler": _signal_handlers(),
            "module in sys.modules": _modules(),
            "log handler": _log_handlers(),
            "in sys.meta_path": {id(one): repr(one) for one in sys.meta_path if _is_new(one)},
            "working directory": {os.getcwd(): os.getcwd()},  # noqa: PTH109
            **_in_loop(),
        }
        if self._kernel is not None:
            looks["registration"] = _registrations(self._kernel)
        return looks


def _is_new(finder: object) -> bool:
    """Return whether a finder is not the loader's, which is there while packages are loaded."""
    return not type(finder).__module__.startswith("veko_plugins.")


def _signal_handlers() -> dict[object, str]:
    found: dict[object, str] = {}
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if callable(handler) and number not in _SKIPPED:
            name = getattr(handler, "__qualname__", None) or repr(handler)
            found[number, id(handler)] = f"{name} of {signal.Signals(number).name}"
    return found


def _modules() -> dict[object, str]:
    """Return modules of plugins' generations, also under other names; others may be imported."""
    found: dict[object, str] = {}
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType):
            own = module.__dict__.get("__name__")
            if type(own) is str and own.startswith(f"{_GENERATIONS}."):
                found[name, own] = name if name == own else f"{name} (it is {own})"
    return found


def _log_handlers() -> dict[object, str]:
    loggers: list[Any] = [logging.root, *logging.Logger.manager.loggerDict.values()]
    return {
        (id(one), id(handler)): f"{handler!r} of logger {one.name!r}"
        for one in loggers
        if isinstance(one, logging.Logger)
        for handler in one.handlers
        if not type(handler).__module__.startswith("_pytest.")
    }


def _registrations(kernel: Kernel) -> dict[object, str]:
    """Return what is registered, but for what core plugins and the host itself have."""
    found: dict[object, str] = {}
    registry = kernel.registry
    for kind in dict.fromkeys((*map(str, registry.keys("kind")), "hook", "pattern", "event")):
        for entry in registry.entries(kind):
            record = getattr(entry.owner, "record", None)
            if record is not None and record.core:
                continue
            value = entry.value
            of = f" of {record.name}" if record is not None else ""
            what = value.label if isinstance(value, Subscription) else ""
            found[id(entry)] = f"{kind} {entry.key!r} {what}".rstrip() + of
    return found


def _in_loop() -> dict[str, dict[object, str]]:
    """Return the tasks and timers of the loop that runs here, if one does."""
    try:
        loop: Any = asyncio.get_running_loop()
    except RuntimeError:
        return _in_trio()
    own = asyncio.current_task()
    tasks: dict[object, str] = {
        id(task): f"{task.get_name()!r}, {getattr(task.get_coro(), '__qualname__', '')}"
        for task in asyncio.all_tasks()
        if task is not own and not _drives_tests(task)
    }
    # uvloop shows nobody its timers.
    timers: dict[object, str] = {
        id(timer): repr(timer) for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled()
    }
    return {"task": tasks, "timer": timers}


def _drives_tests(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")


def _in_trio() -> dict[str, dict[object, str]]:
    trio = sys.modules.get("trio")
    if trio is None:
        return {}
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        return {}
    found: dict[object, str] = {}
    pending = [root] if root is not None else []
    while pending:
        task = pending.pop()
        found[id(task)] = task.name
        pending.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return {"task": found}

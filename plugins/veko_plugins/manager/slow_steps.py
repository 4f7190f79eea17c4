"""Slow steps: life-cycle functions and imports that take long are named while they run.

A thread looks at the steps that run, so that one which blocks the loop is named too. It gives the
line: of the loop's own stack if the plugin blocks it, else of what the step's task waits for.

Cost: an entry in a dictionary for each step. The thread sleeps while no step runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

from veko.extend import suspended_frames

__all__ = ["FIRST", "SlowSteps"]

FIRST: Final = 1.0
"""Seconds after which a step is named first; then after twice as long, and so on."""
_LOOK: Final = 0.25
_NOTHING: Final = nullcontext()
_log: Final = logging.getLogger("veko.loading")


class _Step(msgspec.Struct):
    plugin: str
    step: str
    source: Path | None
    begin: float
    task: asyncio.Task[Any] | None
    loop: asyncio.AbstractEventLoop
    thread: int
    due: float


class SlowSteps:
    """Watches the steps of one run of the manager."""

    def __init__(self) -> None:
        self._running: dict[int, _Step] = {}
        self._idle = True
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._watch, name="veko-loading", daemon=True)

    def start(self) -> None:
        """Start the thread; a simulation has none, and no step that takes time."""
        if not getattr(asyncio.get_running_loop(), "simulated", False):
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=5.0)

    def around(self, step: str, plugin: Any) -> AbstractContextManager[None]:
        """Watch a step of the life cycle; see `Bus.intercept_step`."""
        # An operation (`load`) may wait for others; a call (`load()`) is the plugin's own.
        return self.watching(step, plugin.name, plugin.source) if step[-2:] == "()" else _NOTHING

    @contextmanager
    def watching(self, step: str, plugin: str, source: Path | None) -> Iterator[None]:
        """Watch what runs inside.

        Args:
            step: What it is, for messages.
            plugin: The plugin's name.
            source: The plugin's file or folder.
        """
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        one = _Step(
            plugin, step, source, time.monotonic(), task, loop, threading.get_ident(), FIRST
        )
        self._running[id(one)] = one
        if self._idle:
            self._wake.set()
        try:
            yield
        finally:
            del self._running[id(one)]

    def _watch(self) -> None:
        while not self._stopping:
            if self._wake.wait(None if self._idle else _LOOK):
                self._wake.clear()
            # Before it looks: a step that begins after the look sets the event.
            self._idle = True
            for one in tuple(self._running.values()):
                self._idle = False
                if time.monotonic() - one.begin >= one.due:
                    one.due *= 2
                    self._name(one)

    def _name(self, one: _Step) -> None:
        where = _inside(_stack(sys._current_frames().get(one.thread)), one.source)
        if where is not None:
            _warn(one, f"runs at {where} and blocks the event loop")
        else:
            # The loop's thread may read what the task waits for: it does not run meanwhile.
            with contextlib.suppress(RuntimeError):  # the loop is closed
                one.loop.call_soon_threadsafe(self._name_waiting, one)

    def _name_waiting(self, one: _Step) -> None:
        if id(one) not in self._running:
            return
        frames = () if one.task is None else suspended_frames(one.task.get_coro())
        where = _inside(reversed(tuple(frames)), one.source)
        _warn(one, "is still running" if where is None else f"waits at {where}")


def _warn(one: _Step, what: str) -> None:
    seconds = time.monotonic() - one.begin
    _log.warning("%s: %s %s, for %.0f s so far", one.plugin, one.step, what, seconds)


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _inside(frames: Iterable[FrameType], source: Path | None) -> str | None:
    """Return file and line of the first frame in a plugin's files."""
    if source is None:
        return None
    folder = source.parent if source.name == "__init__.py" else source
    for frame in frames:
        path = frame.f_code.co_filename
        if path == str(source) or path.startswith(f"{folder}{os.sep}"):
            return f"{path}:{frame.f_lineno}"
    return None

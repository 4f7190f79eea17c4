"""The watchdog: which plugin blocked the event loop, and at which line.

The idea: a timer on the loop fires every half threshold (the heartbeat), and a thread checks that
it does. If no heartbeat comes for a whole threshold, the thread reads the stack of the loop's
thread. The innermost frame that belongs to a plugin gives the plugin and the line; the outermost
frame of the same plugin gives the handler. The block is reported once the loop is free again, as a
fault of the plugin the first time at each line. If the loop is still blocked after ten thresholds,
the thread logs the stack itself, since the loop cannot. Every block longer than the threshold is
detected, and none shorter than half of it.

Cost: twenty wake-ups a second of the thread and of the loop (`benchmarks/watchdog.py`), nothing on
any call, and memory for up to 1,000 locations.
Promise: it interrupts nothing, changes nothing and keeps nothing alive. A suspended process and a
debugger are not faults; a plugin that blocks during its import or `load()` causes a warning only,
since neither has to be quick. Imports that no plugin asked for, and reading sources, are Veko's own
work and not reported. Code that holds the interpreter's lock is named only if it is still
running when it releases the lock.
"""

from __future__ import annotations

import asyncio
import linecache
import logging
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from veko import Context, Event, Plugin, VekoError

from ._lib.blame import CodeOwners, FunctionKey

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["Block", "LoopBlocked", "Watchdog"]

_log: Final = logging.getLogger("veko.watchdog")
MOST_BLOCKS: Final = 1_000
"""Locations that are remembered."""
_LONG: Final = 10
"""A block longer than this many thresholds is logged while it lasts."""
_LAG_SECONDS: Final = 10.0
"""Seconds for which the lag of the loop is remembered."""
_LATE: Final = 1.25
"""If the thread wakes up later than this many thresholds, it may have been suspended itself."""
_IMPORTER: Final = f"{Path(__file__).parent / 'loader'}{os.sep}"
"""The folder of the loader: a stack with a frame from it is importing a plugin."""
_CALL_NEXT: Final = (
    "_around.<locals>.call_next",
    str(Path(__file__).parent / "http" / "middleware.py"),
)
"""The function by which a middleware waits for what it wraps."""
_READERS: Final = f"{Path(__file__).parent / '_source'}{os.sep}"
_DISCOVERY: Final = f"{Path(__file__).parent / 'discovery'}{os.sep}"
"""What reads the sources of plugins."""
_SAMPLER: Final = f"{Path(__file__).parent / 'ledger'}{os.sep}"
"""What samples stacks."""
_DEBUGGERS: Final = frozenset(("bdb.py", "pdb.py"))


class Block(msgspec.Struct, frozen=True):
    """A line that blocked the event loop.

    Attributes:
        plugin: The plugin that the code belongs to; `None` for the application's own code.
        event: The event or route whose handler blocked; `None` if it was not in a handler.
        handler: The qualified name of the plugin's function that was called.
        path: The file.
        line: The line.
        seconds: The duration of the longest block at this line.
        count: How often this line blocked the loop.
        total: Seconds of all these blocks together.
        stack: The whole stack, innermost frame last, formatted like a traceback.
    """

    plugin: str | None
    event: str | None
    handler: str
    path: str
    line: int
    seconds: float
    count: int = 1
    stack: str = ""
    total: float = 0.0


LOOP_BLOCKED: Final = Event(
    "loop:blocked",
    Block,
    doc="The event loop was blocked for longer than the watchdog allows. Arguments: the block, the "
    "plugin's name (or `None`).",
)


class LoopBlocked(VekoError):
    """A plugin blocked the event loop for longer than the watchdog allows.

    Fix it by awaiting instead of blocking, or by moving the work to a thread
    (`await anyio.to_thread.run_sync(...)`).

    Attributes:
        seconds: How long the loop was blocked.
    """

    def __init__(
        self,
        message: str,
        *,
        seconds: float,
        plugin: str | None = None,
        event: str | None = None,
        path: str | Path | None = None,
        line: int | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, plugin=plugin, event=event, path=path, line=line, remedy=remedy)
        self.seconds = seconds


class _Frame(NamedTuple):
    name: str
    path: str
    first: int
    line: int

    @property
    def function(self) -> FunctionKey:
        return self.path, self.first


class _Culprit(NamedTuple):
    plugin: str
    event: str | None
    handler: str
    frame: _Frame


class _Stall(NamedTuple):
    """One block as the thread saw it."""

    frames: list[_Frame]
    stack: str
    seconds: float


_Stalls = asyncio.Queue[_Stall]


class Watchdog(Plugin):
    """The core plugin `watchdog`; the service of that name is this object.

    Args:
        threshold: Seconds that the loop may be blocked.
        begin: Whether to watch as soon as the plugin is loaded; otherwise from `begin()` on. An
            application that is starting serves nobody yet, so blocking its loop is no fault.
    """

    name = "watchdog"
    version = "2.0.0"
    description = "Names the plugin and the line that block the event loop"
    core = True

    _context: Context

    def __init__(self, threshold: float = 0.1, *, begin: bool = True) -> None:
        self.threshold = threshold
        self._begin_at_load = begin
        self._blocks: dict[tuple[str, int], Block] = {}
        self._lags: deque[float] | None = None

    async def load(self, context: Context) -> None:
        """Declare the event, provide the service, and begin if `begin` was given."""
        self._blocks = {}
        self._context = context
        context.declare(LOOP_BLOCKED)
        context.provide("watchdog", self)
        if self._begin_at_load:
            await self.begin()

    async def begin(self) -> None:
        """Start watching the loop that this is called in."""
        await self._context.enter(self._watching(self._context.kernel))

    @property
    def lag(self) -> float | None:
        """The longest delay of a heartbeat in the last ten seconds; `None` if not watching."""
        return None if self._lags is None else max(self._lags, default=0.0)

    @property
    def blocks(self) -> list[Block]:
        """The lines that have blocked the loop, the longest block first."""
        return sorted(self._blocks.values(), key=lambda block: -block.seconds)

    @asynccontextmanager
    async def _watching(self, kernel: Kernel) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        stalls: _Stalls = asyncio.Queue()
        lags = self._lags = deque(maxlen=max(1, round(_LAG_SECONDS / (self.threshold / 2))))
        thread = _Thread(loop, self.threshold, stalls, lags)
        reporting = asyncio.ensure_future(self._report_all(kernel, stalls))
        thread.start()
        try:
            yield
        finally:
            thread.stop()
            self._lags = None
            reporting.cancel()
            await asyncio.wait([reporting])

    async def _report_all(self, kernel: Kernel, stalls: _Stalls) -> None:
        while True:
            await self._blocked(kernel, await stalls.get())

    async def _blocked(self, kernel: Kernel, stall: _Stall) -> None:
        found = _culprit(await CodeOwners.of(kernel), stall.frames)
        frame = found.frame if found else stall.frames[0]
        handler = found.handler if found else frame.name
        key = (frame.path, frame.line)
        known = self._blocks.get(key)
        block = Block(
            found.plugin if found else None,
            found.event if found else None,
            handler,
            frame.path,
            frame.line,
            max(stall.seconds, known.seconds if known else 0.0),
            known.count + 1 if known else 1,
            stall.stack,
            stall.seconds + (known.total if known else 0.0),
        )
        if known is not None or len(self._blocks) < MOST_BLOCKS:
            self._blocks[key] = block
        if known is None:
            await self._report(kernel, block, stall)
        await kernel.bus.emit(LOOP_BLOCKED.name, block, block.plugin)

    @staticmethod
    async def _report(kernel: Kernel, block: Block, stall: _Stall) -> None:
        of = f" of {block.event}" if block.event else ""
        if block.plugin is None and any(map(_is_own_work, stall.frames)):
            # It is over when the application serves, and its authors cannot change it.
            took = stall.seconds * 1000
            _log.debug("Veko itself blocked the event loop for %.0f ms:\n%s", took, stall.stack)
            return
        message = f"{block.handler}(){of} blocked the event loop for {stall.seconds * 1000:.0f} ms"
        if block.plugin is None or any(f.path.startswith(_IMPORTER) for f in stall.frames):
            prefix = "" if block.plugin is None else f"{block.plugin}: "
            _log.warning("%s%s at %s:%d", prefix, message, block.path, block.line)
            return
        error = LoopBlocked(
            message,
            seconds=stall.seconds,
            line=block.line,
            plugin=block.plugin,
            event=block.event,
            path=Path(block.path),
            remedy=f"Look at line {block.line}: await instead of blocking, or move the work to "
            "anyio.to_thread.run_sync().",
        )
        if any(frame.name.endswith(".call_life_cycle") for frame in stall.frames):
            _log.warning("%s", error)
            return
        record = kernel.get(block.plugin)
        owner = record.current if record is not None and record.current else block.plugin
        await kernel.bus.report(error, owner=owner, event=block.event, handler=block.handler)


class _Thread:
    """The thread that watches, and the heartbeat on the loop that it watches."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threshold: float,
        stalls: _Stalls,
        lags: deque[float],
    ) -> None:
        self._loop = loop
        self._lags = lags
        self._threshold = threshold
        self._beat = threshold / 2
        self._stalls = stalls
        self._watched = threading.get_ident()
        self._stopping = threading.Event()
        self._back = threading.Event()
        self._waiting = False
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="veko-watchdog", daemon=True)

    def start(self) -> None:
        self._tick()
        self._thread.start()

    def stop(self) -> None:
        """End the thread. It ends at once: all its waits watch for this."""
        if self._timer is not None:
            self._timer.cancel()
        self._stopping.set()
        self._back.set()
        self._thread.join(timeout=5.0)

    def _tick(self) -> None:
        last, self._last = self._last, time.monotonic()
        self._lags.append(max(0.0, self._last - last - self._beat) if last else 0.0)
        self._timer = self._loop.call_later(self._beat, self._tick)
        if self._waiting:
            self._back.set()

    def _run(self) -> None:
        worked = time.process_time()
        while not self._stopping.wait(self._last + self._threshold - time.monotonic()):
            last, before, worked = self._last, worked, time.process_time()
            late = time.monotonic() - last
            if late < self._threshold:
                continue
            if late > _LATE * self._threshold and worked - before < late / 5:
                # This thread did not run either: the process was suspended, or the machine is
                # busy (test_a_process_that_was_suspended_is_not_blamed). If the loop does not
                # come back now that both can run, it is blocked after all.
                resumed = time.monotonic()
                if self._wait(self._threshold / 4):
                    continue
                if time.monotonic() - resumed > self._threshold / 2:
                    continue
            frames = _frames_of(self._watched)
            if not frames:
                continue
            stack = _written(frames)
            if any(Path(one.path).name in _DEBUGGERS for one in frames):
                self._wait(None)
            else:
                self._follow(last, frames, stack)

    def _follow(self, last: float, frames: list[_Frame], stack: str) -> None:
        """Wait until the loop is free again, then report the block."""
        if not self._wait((_LONG - 1) * self._threshold):
            took = time.monotonic() - last
            _log.error("the event loop has been blocked for %.1f s and still is:\n%s", took, stack)
            self._wait(None)
        if not self._stopping.is_set():
            took = self._last - last
            stall = _Stall(frames, stack, took)
            self._loop.call_soon_threadsafe(self._stalls.put_nowait, stall)

    def _wait(self, seconds: float | None) -> bool:
        """Wait for the next heartbeat; false if it did not come in time."""
        last = self._last
        self._back.clear()
        # The heartbeat sets the event only from here on, so that it is usually just a timer; a
        # beat that came between the two lines is seen by its time.
        self._waiting = True
        came = self._last != last or self._stopping.is_set() or self._back.wait(seconds)
        self._waiting = False
        return came


def _frames_of(thread: int) -> list[_Frame]:
    """Read the stack of a thread, innermost frame first.

    No file is read here: while this thread holds a frame, it keeps alive all that the frame refers
    to (test_it_lets_go_of_what_it_looks_at_before_it_reads_any_file).
    """
    frame, found = sys._current_frames().get(thread), list[_Frame]()
    while frame is not None and frame.f_code.co_filename.startswith(_SAMPLER):
        frame = frame.f_back  # a signal handler, which interrupted what it looks at
    while frame is not None:
        code = frame.f_code
        linecache.lazycache(code.co_filename, frame.f_globals)
        found.append(
            _Frame(code.co_qualname, code.co_filename, code.co_firstlineno, frame.f_lineno or 0)
        )
        frame = frame.f_back
    return found


def _is_own_work(frame: _Frame) -> bool:
    """Return whether a frame imports modules, or reads plugins for Veko."""
    return frame.path.startswith(("<frozen importlib", _READERS, _DISCOVERY))


def _written(frames: list[_Frame]) -> str:
    """Format a stack like a traceback."""
    inner = frames[:60]
    for path in {one.path for one in inner}:
        linecache.checkcache(path)
    lines = [(f.path, f.line, f.name.rpartition(".")[2], None) for f in reversed(inner)]
    return "".join(traceback.StackSummary.from_list(lines).format())


def _culprit(owners: CodeOwners, frames: list[_Frame]) -> _Culprit | None:
    """Find the plugin with the innermost frame, and which of its functions was called."""
    names = [owners.plugin(frame.function) for frame in frames]
    for name, innermost in zip(names, frames, strict=True):
        if name is not None:
            break
        if (innermost.name, innermost.path) == _CALL_NEXT:
            # The middleware further out only waits for what it wraps: something that Veko does for
            # a request. Held by test_a_middleware_is_not_blamed_for_a_form_that_a_route_decodes.
            return None
    else:
        return None
    own = [frame for frame, owner in zip(frames, names, strict=True) if owner == name]
    called = next((frame for frame in own if owners.is_handler(frame.function)), own[-1])
    return _Culprit(name, owners.event(called.function), called.name, innermost)

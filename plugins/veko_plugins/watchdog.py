"""The watchdog: who blocked the event loop, and where.

The idea: the loop beats, by a timer of half the threshold, and a thread looks whether it does. If
no beat comes for the whole threshold, the thread looks at what the loop's own thread is doing: the
innermost frame of a plugin says whose it is and where it stands, the outermost of the same plugin
which handler it was. It is told when the loop is free again, as a fault once for each place; a loop
that stays blocked for ten times the threshold is written about from the thread, since nobody else
can. So every block longer than the threshold is seen, and none that is shorter than half of it.

Cost: twenty wake-ups a second of the thread and of the loop (`benchmarks/watchdog.py`); nothing on
any call. What it knows is kept for 1,000 places.
Promise: it stops nothing, changes nothing and keeps nothing alive. A process that was suspended, a
debugger, and the import and `load()` of a plugin (a warning, as nobody expects these to be quick)
are no faults. Code that keeps the interpreter's lock is named if it still stands there when it lets
go.
"""

from __future__ import annotations

import asyncio
import linecache
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from veko import Context, Event, Plugin, VekoError

from ._lib.blame import Place, Whose

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["Block", "LoopBlocked", "Watchdog"]

_log: Final = logging.getLogger("veko.watchdog")
PLACES: Final = 1_000
_LONG: Final = 10
"""Times the threshold after which it is written about though the loop is not back."""
_LAGS: Final = 10.0
"""Seconds for which it is remembered how late the loop was."""
_LATE: Final = 1.25
"""Times the threshold after which the thread comes too late to tell who it was."""
_OWN: Final = Path(__file__).parent
_IMPORTING: Final = frozenset(str(_OWN / name) for name in ("_importer.py", "loader.py"))
_DEBUGGERS: Final = frozenset(("bdb.py", "pdb.py"))


class Block(msgspec.Struct, frozen=True):
    """A place that blocked the event loop.

    Attributes:
        plugin: Whose code it is; `None` for the host's.
        event: The event, or the route, whose handler it was, if it was one's.
        handler: The function that was called, as its plugin names it.
        path: The file.
        line: The line.
        seconds: For how long, the longest time.
        count: How often.
        stack: The whole stack, the innermost frame last, as in a traceback.
    """

    plugin: str | None
    event: str | None
    handler: str
    path: str
    line: int
    seconds: float
    count: int = 1
    stack: str = ""


LOOP_BLOCKED: Final = Event(
    "loop:blocked",
    Block,
    doc="Something blocked the event loop for longer than the watchdog allows: the place, and the "
    "plugin's name (or `None`). Every time, also where it was reported before.",
)


class LoopBlocked(VekoError):
    """A plugin kept the event loop from everybody else.

    Mended by awaiting something that waits without blocking, or by leaving the work to a thread
    (`await anyio.to_thread.run_sync(...)`).

    Attributes:
        seconds: For how long.
        line: The line, in `path`.
    """

    def __init__(self, message: str, *, seconds: float, line: int, **place: Any) -> None:
        super().__init__(message, **place)
        self.seconds = seconds
        self.line = line


class _Frame(NamedTuple):
    name: str
    path: str
    first: int
    line: int

    @property
    def place(self) -> Place:
        return self.path, self.first


class _Culprit(NamedTuple):
    plugin: str
    event: str | None
    handler: str
    at: _Frame


_Told = asyncio.Queue[tuple[list[_Frame], str, float]]


class Watchdog(Plugin):
    """The core plugin `watchdog`; the service of that name is this object.

    Args:
        threshold: Seconds that the loop may be blocked.
        begin: Whether to watch from the beginning; else from `begin()` on. While an application
            starts, nobody waits for its loop yet.
    """

    name = "watchdog"
    version = "2.0.0"
    description = "Names the plugin and the line that block the event loop"
    core = True

    _context: Context

    def __init__(self, threshold: float = 0.1, *, begin: bool = True) -> None:
        self.threshold = threshold
        self._at_once = begin
        self._places: dict[tuple[str, int], Block] = {}
        self._lags: deque[float] | None = None

    async def load(self, context: Context) -> None:
        """Declare the event, provide the service, and begin if that is wanted."""
        self._places = {}
        self._context = context
        context.declare(LOOP_BLOCKED)
        context.provide("watchdog", self)
        if self._at_once:
            await self.begin()

    async def begin(self) -> None:
        """Begin to watch the loop that this runs in."""
        await self._context.enter(self._watching(self._context.kernel))

    @property
    def lag(self) -> float | None:
        """How late the loop's beat was at worst within about ten seconds; `None` before any."""
        return None if self._lags is None else max(self._lags, default=0.0)

    @property
    def blocks(self) -> list[Block]:
        """The places that have blocked the loop, the longest first."""
        return sorted(self._places.values(), key=lambda block: -block.seconds)

    @asynccontextmanager
    async def _watching(self, kernel: Kernel) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        told: _Told = asyncio.Queue()
        lags = self._lags = deque(maxlen=max(1, round(_LAGS / (self.threshold / 2))))
        thread = _Thread(loop, self.threshold, told, lags)
        telling = asyncio.ensure_future(self._tell(kernel, told))
        thread.start()
        try:
            yield
        finally:
            thread.stop()
            self._lags = None
            telling.cancel()
            await asyncio.wait([telling])

    async def _tell(self, kernel: Kernel, told: _Told) -> None:
        while True:
            frames, stack, seconds = await told.get()
            await self._blocked(kernel, frames, stack, seconds)

    async def _blocked(
        self, kernel: Kernel, frames: list[_Frame], stack: str, seconds: float
    ) -> None:
        found = _culprit(kernel, frames)
        at = found.at if found else frames[0]
        handler = found.handler if found else at.name
        key = (at.path, at.line)
        known = self._places.get(key)
        block = Block(
            found.plugin if found else None,
            found.event if found else None,
            handler,
            at.path,
            at.line,
            max(seconds, known.seconds if known else 0.0),
            known.count + 1 if known else 1,
            stack,
        )
        if known is not None or len(self._places) < PLACES:
            self._places[key] = block
        if known is None:
            await self._report(kernel, block, frames, seconds)
        await kernel.bus.emit(LOOP_BLOCKED.name, block, block.plugin)

    @staticmethod
    async def _report(kernel: Kernel, block: Block, frames: list[_Frame], seconds: float) -> None:
        of = f" of {block.event}" if block.event else ""
        what = f"{block.handler}(){of} blocked the event loop for {seconds * 1000:.0f} ms"
        if block.plugin is None or any(f.path in _IMPORTING for f in frames):
            who = "" if block.plugin is None else f"{block.plugin}: "
            _log.warning("%s%s at %s:%d", who, what, block.path, block.line)
            return
        error = LoopBlocked(
            what,
            seconds=seconds,
            line=block.line,
            plugin=block.plugin,
            event=block.event,
            path=Path(block.path),
            remedy=f"See line {block.line}; await what waits, or leave the work to "
            "anyio.to_thread.run_sync().",
        )
        if any(frame.name.endswith(".call_life_cycle") for frame in frames):
            _log.warning("%s", error)
            return
        record = kernel.get(block.plugin)
        owner = record.current if record is not None and record.current else block.plugin
        await kernel.bus.report(error, owner=owner, event=block.event, handler=block.handler)


class _Thread:
    """The thread that looks, and the timer of the loop that it looks at."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threshold: float,
        told: _Told,
        lags: deque[float],
    ) -> None:
        self._loop = loop
        self._lags = lags
        self._threshold = threshold
        self._beat = threshold / 2
        self._told = told
        self._watched = threading.get_ident()
        self._stopping = threading.Event()
        self._back = threading.Event()
        self._missed = False
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="veko-watchdog", daemon=True)

    def start(self) -> None:
        self._tick()
        self._thread.start()

    def stop(self) -> None:
        """End it; it answers at once, since it waits for nothing else."""
        if self._timer is not None:
            self._timer.cancel()
        self._stopping.set()
        self._back.set()
        self._thread.join(timeout=5.0)

    def _tick(self) -> None:
        last, self._last = self._last, time.monotonic()
        self._lags.append(max(0.0, self._last - last - self._beat) if last else 0.0)
        self._timer = self._loop.call_later(self._beat, self._tick)
        if self._missed:
            self._back.set()

    def _run(self) -> None:
        worked = time.process_time()
        while not self._stopping.wait(self._last + self._threshold - time.monotonic()):
            last, before, worked = self._last, worked, time.process_time()
            late = time.monotonic() - last
            if late < self._threshold:
                continue
            if late > _LATE * self._threshold and worked - before < late / 5:
                # This thread did not run either: the process was suspended, or the machine busy.
                # If the loop does not come back now that both may run, it is blocked as well.
                looked = time.monotonic()
                if self._wait(self._threshold / 4):
                    continue
                if time.monotonic() - looked > self._threshold / 2:
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
        """Wait until the loop is back, and tell."""
        if not self._wait((_LONG - 1) * self._threshold):
            took = time.monotonic() - last
            _log.error("the event loop is blocked for %.1f s and still is:\n%s", took, stack)
            self._wait(None)
        if not self._stopping.is_set():
            took = self._last - last
            self._loop.call_soon_threadsafe(self._told.put_nowait, (frames, stack, took))

    def _wait(self, seconds: float | None) -> bool:
        """Wait for the next beat; false if it did not come in time."""
        last = self._last
        self._back.clear()
        self._missed = True  # from here on the beat says so
        came = self._last != last or self._stopping.is_set() or self._back.wait(seconds)
        self._missed = False
        return came


def _frames_of(thread: int) -> list[_Frame]:
    """Read where a thread stands, the innermost frame first.

    No file is read here: whatever the frames refer to lives as long as this thread has them.
    """
    frame, found = sys._current_frames().get(thread), list[_Frame]()
    while frame is not None:
        code = frame.f_code
        linecache.lazycache(code.co_filename, frame.f_globals)
        found.append(
            _Frame(code.co_qualname, code.co_filename, code.co_firstlineno, frame.f_lineno)
        )
        frame = frame.f_back
    return found


def _written(frames: list[_Frame]) -> str:
    """Write a stack down as a traceback does."""
    inner = frames[:60]
    for path in {one.path for one in inner}:
        linecache.checkcache(path)
    lines = [(f.path, f.line, f.name.rpartition(".")[2], None) for f in reversed(inner)]
    return "".join(traceback.StackSummary.from_list(lines).format())


def _culprit(kernel: Kernel, frames: list[_Frame]) -> _Culprit | None:
    """Find the plugin whose code is innermost, and which of its functions was called."""
    whose = Whose(kernel)
    owners = [whose.plugin(frame.place) for frame in frames]
    at = next((i for i, name in enumerate(owners) if name is not None), None)
    if at is None:
        return None
    name = owners[at]
    assert name is not None
    own = [frame for frame, owner in zip(frames, owners, strict=True) if owner == name]
    outermost = next((frame for frame in own if whose.is_handler(frame.place)), own[-1])
    return _Culprit(name, whose.event(outermost.place), outermost.name, frames[at])

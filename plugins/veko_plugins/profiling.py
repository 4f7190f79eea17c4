"""Profiling: where a plugin spends its time on the event loop, as a flame graph.

The idea: pyinstrument samples the loop's thread for a while; of its stacks those are kept in which
the plugin's code stands, from its outermost frame on. Beside that the calls and errors of that time
are counted, and what the plugin's files allocated and kept.

Cost: about 1,000 samples a second while it runs, tracemalloc if memory is asked for; nothing
otherwise. One profile at a time.
Promise: what a plugin waits for is not in it (the loop did something else then), what it computes
or blocks for is. The file is written whole or not at all.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import msgspec

from veko import Context, Event, NotFoundError, OptionError, Plugin, PluginRecord, StateError

from ._lib.blame import Whose
from ._lib.home import allocated

if TYPE_CHECKING:
    from pyinstrument.session import Session

__all__ = ["PluginProfile", "Profiling"]

_INTERVAL: Final = 0.001
_SPEEDSCOPE: Final = (".speedscope.json", ".json")

DEV_PROFILE: Final = Event(
    "dev:profile",
    PluginRecord,
    doc="A plugin was profiled: the plugin, and the file with its flame graph.",
)


class PluginProfile(msgspec.Struct, frozen=True):
    """What a plugin did while it was profiled.

    Attributes:
        name: The plugin.
        duration: Seconds that the profile took.
        calls: How many calls of its handlers ended; `None` if calls are not measured.
        time: Seconds in which the event loop ran its code, and what that called.
        memory: Bytes that its files allocated and have not freed since (below 0: freed more);
            `None` if that was not asked for, or it did not come from files.
        errors: How often its code failed.
        path: The flame graph.
    """

    name: str
    duration: float
    calls: int | None
    time: float
    memory: int | None
    errors: int
    path: Path


class Profiling(Plugin):
    """The core plugin `profiling`; the service of that name is this object.

    Args:
        folder: Where flame graphs are written unless a path is given.
    """

    name = "profiling"
    version = "2.0.0"
    description = "Flame graphs of single plugins"
    core = True

    _context: Context

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = False

    def load(self, context: Context) -> None:
        """Declare the event and provide the service."""
        self._context = context
        context.declare(DEV_PROFILE)
        context.provide("profiling", self)

    async def profile(
        self,
        name: str,
        duration: float = 10.0,
        *,
        path: str | Path | None = None,
        memory: bool = False,
    ) -> PluginProfile:
        """Profile a plugin while the application does its work.

        Args:
            name: The plugin.
            duration: For how many seconds.
            path: Where the flame graph goes: a page for a browser, or a file for speedscope if it
                ends in `.json`. Something that is there is replaced.
            memory: Whether to trace its allocations too, which slows everything down meanwhile.

        Raises:
            NotFoundError: There is no such plugin.
            OptionError: pyinstrument is not installed, `duration` is not above 0 or has no end,
                or nothing can be written there.
            StateError: Something is being profiled already.
        """
        kernel = self._context.kernel
        record = kernel.get(name)
        if record is None:
            raise NotFoundError(
                f"there is no plugin {name!r} to profile", plugin=name, remedy="Load it first."
            )
        if not 0 < duration < math.inf:
            raise OptionError(f"{duration} s are no time to profile", remedy="Give seconds.")
        target = self._target(name, path)
        if self._running:
            raise StateError("something is being profiled", remedy="Wait for its end.")
        self._running = True
        try:
            return await self._profiled(record, duration, target, memory)
        finally:
            self._running = False

    def _target(self, name: str, path: str | Path | None) -> Path:
        if path is not None:
            return Path(path)
        when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return self._folder / f"{name}-{when}.html"

    async def _profiled(
        self, record: PluginRecord, duration: float, target: Path, memory: bool
    ) -> PluginProfile:
        profiler = _profiler(record.name)
        calls, errors = self._calls(record.name), record.error_count
        tracing = tracemalloc.is_tracing()
        if memory and not tracing:
            tracemalloc.start()
        try:
            kept = allocated(record) if memory else None
            begin = time.perf_counter()
            try:
                profiler.start()
            except RuntimeError as error:
                raise StateError(
                    f"this thread cannot be sampled: {error}",
                    remedy="Something else profiles it (a debugger, cProfile): end that first.",
                ) from error
            try:
                await asyncio.sleep(duration)
            finally:
                session = profiler.stop()
            took = time.perf_counter() - begin
            now = allocated(record) if memory else None
        finally:
            if memory and not tracing:
                tracemalloc.stop()
        calls_now = self._calls(record.name)
        spent = _keep(session, Whose(self._context.kernel), record.name)
        await anyio.to_thread.run_sync(_write, session, target)
        await self._context.kernel.bus.emit(DEV_PROFILE.name, record, target)
        return PluginProfile(
            name=record.name,
            duration=took,
            calls=None if calls is None or calls_now is None else max(0, calls_now - calls),
            time=spent,
            memory=None if kept is None or now is None else now - kept,
            errors=max(0, record.error_count - errors),
            path=target,
        )

    def _calls(self, name: str) -> int | None:
        entry = self._context.kernel.registry.get("service", "metrics")
        found = entry.value.get(name) if entry is not None else None
        return None if found is None else int(found.calls)


def _profiler(name: str) -> Any:
    try:
        from pyinstrument import Profiler
    except ImportError as error:
        raise OptionError(
            "profiling needs pyinstrument, which is not installed",
            plugin=name,
            remedy="pip install 'veko[profile]'.",
        ) from error
    # Everything that the thread does, whichever task it is in.
    return Profiler(interval=_INTERVAL, async_mode="disabled")


def _keep(session: Session, whose: Whose, name: str) -> float:
    """Leave the stacks with the plugin's code in a session; return the seconds that they make."""
    kept: list[tuple[list[str], float]] = []
    places: dict[str, bool] = {}

    def is_its(frame: str) -> bool:
        if frame not in places:
            function, _, rest = frame.partition("\x00")
            path, _, first = rest.partition("\x00")
            line = re.match(r"\d+", first)
            places[frame] = (
                function != "" and line is not None and whose.plugin((path, int(line[0]))) == name
            )
        return places[frame]

    for stack, seconds in session.frame_records:
        at = next((i for i, frame in enumerate(stack) if is_its(frame)), None)
        if at is not None:
            kept.append(([*stack[:1], *stack[at:]], seconds))
    session.frame_records = kept
    spent = sum(seconds for _, seconds in kept)
    session.sample_count = len(kept)
    session.target_description = f"the plugin {name}"
    return spent


def _write(session: Session, target: Path) -> None:
    from pyinstrument.renderers import HTMLRenderer, SpeedscopeRenderer

    speedscope = target.name.endswith(_SPEEDSCOPE)
    renderer = SpeedscopeRenderer() if speedscope else HTMLRenderer()
    partial = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(renderer.render(session), "utf-8")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"the flame graph cannot be written: {error}", remedy="Give another path."
        ) from error

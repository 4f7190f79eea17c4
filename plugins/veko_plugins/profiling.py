"""Profiling: where a plugin spends its time on the event loop, as a flame graph.

The idea: pyinstrument samples the loop's thread for a while. Stacks that contain code of the plugin
are kept, from the plugin's outermost frame on; all others are dropped. The calls and errors of that
time are counted as well, and the memory that the plugin's files allocated and kept.

Cost: about 1,000 samples a second while a profile runs, plus tracemalloc if memory is asked for;
nothing otherwise. Only one profile runs at a time.
Promise: time that the plugin computes or blocks is in the profile; time that it awaits is not,
since the loop runs other code then. The file is written completely or not at all.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import re
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import msgspec

from veko import Context, Event, NotFoundError, OptionError, Plugin, PluginRecord, StateError

from ._lib.blame import CodeOwners, allocated
from ._lib.private_files import create_private, private_folder

if TYPE_CHECKING:
    from pyinstrument.session import Session

__all__ = ["PluginProfile", "Profiling"]

_INTERVAL: Final = 0.001
_SPEEDSCOPE: Final = (".speedscope.json", ".json")

DEV_PROFILE: Final = Event(
    "dev:profile",
    PluginRecord,
    doc="A plugin was profiled. Arguments: the plugin, the path of the flame graph.",
)


class PluginProfile(msgspec.Struct, frozen=True):
    """The profile of one plugin.

    Attributes:
        name: The plugin.
        duration: How long the profile ran, in seconds.
        calls: How many calls of its handlers ended; `None` if calls are not measured.
        time: Seconds for which the event loop ran the plugin's code, including what that called.
        memory: By how many bytes the memory allocated in its files grew (below 0: shrank); `None`
            if memory was not asked for, or the plugin does not come from files.
        errors: How often its code failed.
        path: The file with the flame graph.
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
        folder: The folder for flame graphs, used if `profile` is given no path.
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
            path: The file for the flame graph: an HTML page, or a speedscope file if the name ends
                in `.json`. An existing file is replaced.
            memory: Whether to trace allocations too, which slows the whole process down.

        Raises:
            NotFoundError: There is no plugin of that name.
            OptionError: pyinstrument is not installed, `duration` is not a finite number above 0,
                or the file cannot be written.
            StateError: A profile is running already, or another profiler is active.
        """
        kernel = self._context.kernel
        record = kernel.get(name)
        try:
            valid = 0 < duration < math.inf
        except TypeError:
            valid = False
        if not valid:
            raise OptionError(
                f"duration must be a finite number above 0, got {duration!r}",
                remedy="Give a number of seconds.",
            )
        if record is None:
            raise NotFoundError(
                f"no plugin named {name!r} is loaded", plugin=name, remedy="Load it first."
            )
        target = self._target(name, path)
        if self._running:
            raise StateError("a profile is running already", remedy="Wait until it has ended.")
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
                    remedy="Stop the other profiler or debugger (cProfile, pdb) first.",
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
        spent = _keep_stacks_of(record.name, session, await CodeOwners.of(self._context.kernel))
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
    # Samples the whole thread: with async_mode "enabled", pyinstrument would follow only the task
    # that called start(), which does nothing but sleep.
    return Profiler(interval=_INTERVAL, async_mode="disabled")


def _keep_stacks_of(name: str, session: Session, owners: CodeOwners) -> float:
    """Drop the stacks of a session without the plugin's code; return the seconds that are left."""
    kept: list[tuple[list[str], float]] = []

    @functools.cache
    def is_of_plugin(frame: str) -> bool:
        # pyinstrument writes a frame as function, file and first line, separated by zero bytes.
        function, _, rest = frame.partition("\x00")
        path, _, first = rest.partition("\x00")
        line = re.match(r"\d+", first)
        return bool(function) and line is not None and owners.plugin((path, int(line[0]))) == name

    for stack, seconds in session.frame_records:
        outermost = next((i for i, frame in enumerate(stack) if is_of_plugin(frame)), None)
        if outermost is not None:
            kept.append(([*stack[:1], *stack[outermost:]], seconds))
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
        private_folder(target.parent)
        try:
            partial.unlink(missing_ok=True)  # of a process that was killed
            with os.fdopen(create_private(partial), "w", encoding="utf-8") as file:
                file.write(renderer.render(session))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"the flame graph cannot be written: {error}",
            path=target,
            remedy="Give a path in a folder that can be written to.",
        ) from error

"""Crashes: a plugin whose worker ends unasked is loaded again, and given up after too many crashes.

It waits 0.1 s, then twice as long each time, at most 5 s, and reloads the plugin. The third crash
within 300 s ends that: its health is `critical`, and `plugin:error` says why. The plugin stays
loaded, with its state, storage and configuration; what it registered answers as its `on_crash`
says. A reload by hand, or of changed files, starts counting again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from veko import Context, VekoError

__all__ = ["MOST", "WINDOW", "CrashError", "Crashes"]

MOST: Final = 3
WINDOW: Final = 300.0
"""Seconds; `MOST` crashes of a plugin within them, and it is given up."""
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 5.0


class CrashError(VekoError):
    """The process of a plugin crashed so often that it is not started again.

    Fix the plugin and reload it.
    """


class _Crashing:
    """What is known of a plugin that has crashed."""

    __slots__ = ("again", "gave_up", "restarting", "times", "wait")

    def __init__(self) -> None:
        self.again: Exception | None = None  # of the new generation, while our reload still runs
        self.times: deque[float] = deque(maxlen=MOST)
        self.wait = _FIRST_WAIT
        self.restarting = False  # its reload is ours, and runs
        self.gave_up = ""


class Crashes:
    """Counts the crashes of plugins' workers over their generations.

    It provides itself as the service `crashes`, which the core plugin `health` asks.

    Args:
        context: The context of the plugin that owns the tasks.
        reload: Reloads a plugin.
        clock: Returns seconds that never go back.
    """

    def __init__(
        self,
        context: Context,
        reload: Callable[[str], Awaitable[object]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._reload = reload
        self._clock = clock
        self._crashing: dict[str, _Crashing] = {}
        context.provide("crashes", self)
        self._follows = False

    def gave_up(self, name: str) -> str:
        """Return why a plugin is not started again; empty if it is, or has not crashed."""
        found = self._crashing.get(name)
        return "" if found is None else found.gave_up

    def crashed(self, name: str, error: Exception) -> None:
        """Count a crash of a plugin that was live, report it, and restart the plugin.

        Args:
            name: The plugin's name.
            error: How its worker ended.
        """
        if not self._follows:  # every plugin that loads would pay for these hooks
            self._follows = True
            self._context.hook("plugin:loaded", self._loaded)
            self._context.hook("plugin:unloaded", self._unloaded)
        found = self._crashing.get(name)
        if found is None or (found.times and self._clock() - found.times[-1] > WINDOW):
            found = self._crashing[name] = _Crashing()
        if found.restarting:
            found.again = error
            return
        self._count(name, found)
        self._context.spawn(self._restart, name, error)

    def _count(self, name: str, found: _Crashing) -> None:
        now = self._clock()
        found.times.append(now)
        if len(found.times) == MOST and now - found.times[0] <= WINDOW:
            found.gave_up = (
                f"its process crashed {MOST} times within {WINDOW:g} s and is not started again"
            )

    async def _restart(self, name: str, error: Exception) -> None:
        """Report a crash and reload the plugin until that works, or it is given up."""
        found = self._crashing.get(name)
        await self._report(name, error)
        while found is not None and found is self._crashing.get(name):
            if found.gave_up:
                await self._report_end(name, found.gave_up, error)
                return
            await asyncio.sleep(found.wait)
            found.wait = min(2 * found.wait, _LONGEST_WAIT)
            if found is not self._crashing.get(name):
                return
            found.restarting, found.again = True, None
            try:
                await self._reload(name)
            except VekoError as failure:  # the reload has reported it
                error = failure
            else:
                again = self._crashing[name].again if name in self._crashing else None
                if again is None:
                    return
                error = again
                await self._report(name, error)
            finally:
                found.restarting = False
            self._count(name, found)

    async def _report(self, name: str, error: Exception) -> None:
        kernel = self._context.kernel
        record = kernel.get(name)
        owner = None if record is None else record.current  # it counts against the generation
        await kernel.bus.report(error, owner=owner or name, handler=f"{name}.process")

    async def _report_end(self, name: str, why: str, cause: Exception) -> None:
        last = cause.message if isinstance(cause, VekoError) else str(cause)
        error = CrashError(
            f"{why}; the last time, {last}", plugin=name, remedy="Fix the plugin and reload it."
        )
        await self._report(name, error)

    def _loaded(self, name: str) -> None:
        found = self._crashing.get(name)
        if found is not None and not found.restarting:
            del self._crashing[name]

    def _unloaded(self, name: str) -> None:
        self._crashing.pop(name, None)

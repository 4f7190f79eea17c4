"""A clock that can be moved: timers, time limits and `time.time()` see time pass at once.

The idea: the clock of the event loop gets an offset, as do `time.time()` and `time.monotonic()`.
Moving goes from one timer to the next, and lets what is due run before it moves on.

Promise: on asyncio's own loop and on trio. `datetime.now()` is compiled and not moved, nor is
`time.perf_counter()`, which measures.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio.lowlevel

from veko import StateError

__all__ = ["Clock"]

_TURNS: Final = 40
"""Turns of the loop in which what a timer has started goes as far as it can."""
_MOST: Final = 100_000


class Clock:
    """Moves the time; made by `moving()`."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._trio: Any = None

    @classmethod
    @contextmanager
    def moving(cls) -> Iterator[Clock]:
        """Give a clock that can be moved inside; afterwards the time is as it was.

        Raises:
            StateError: The event loop has a clock that cannot be moved: uvloop's.
        """
        clock = cls()
        real = {name: getattr(time, name) for name in ("time", "monotonic", "time_ns",
                                                       "monotonic_ns")}  # fmt: skip
        clock._attach()
        try:
            for name in ("time", "monotonic"):
                setattr(time, name, lambda name=name: real[name]() + clock._offset)
            for name in ("time_ns", "monotonic_ns"):
                setattr(time, name, lambda name=name: real[name]() + int(clock._offset * 1e9))
            yield clock
        finally:
            for name, function in real.items():
                setattr(time, name, function)
            if clock._trio is not None:
                clock._add_to_trio(-clock._offset)

    def _attach(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None and "trio" in sys.modules:
            import trio

            self._trio = trio.lowlevel.current_clock()
            if not hasattr(self._trio, "offset"):
                raise StateError(
                    "trio runs with a clock of its own", remedy="Move that one, or leave it out."
                )
        elif not isinstance(loop, asyncio.BaseEventLoop):
            raise StateError(
                f"the clock of {type(loop).__module__} cannot be moved",
                remedy="Run this test on asyncio's own loop: ('asyncio', {'use_uvloop': False}).",
            )

    @property
    def moved(self) -> float:
        """By how many seconds it was moved."""
        return self._offset

    async def move(self, seconds: float) -> None:
        """Let time pass: what is due meanwhile runs in order, at its time.

        What runs in other threads or processes is not waited for.

        Args:
            seconds: How long.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be a finite number, 0 or above, got {seconds!r}")
        await self._settle()
        left = seconds
        for _ in range(_MOST):
            due = self._next()
            if due is None or due > left:
                break
            step = max(due, 0.0)
            self._add(step)
            left -= step
            await self._settle()
        self._add(max(left, 0.0))
        await self._settle()

    def _add(self, seconds: float) -> None:
        self._offset += seconds
        if self._trio is not None:
            self._add_to_trio(seconds)

    def _add_to_trio(self, seconds: float) -> None:
        # Its system clock has an offset, from which each run starts; only assigning is refused.
        object.__setattr__(self._trio, "offset", self._trio.offset + seconds)

    def _next(self) -> float | None:
        """Return the seconds until the next timer, or `None` if there is none."""
        if self._trio is not None:
            import trio

            due = trio.lowlevel.current_statistics().seconds_to_next_deadline
            return None if due == math.inf else due
        loop: Any = asyncio.get_running_loop()
        times = [one.when() for one in loop._scheduled if not one.cancelled()]
        return min(times) - loop.time() if times else None

    async def _settle(self) -> None:
        for _ in range(_TURNS):
            await anyio.lowlevel.checkpoint()

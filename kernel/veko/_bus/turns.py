"""Turns: long work on the event loop that lets other tasks run in between."""

from __future__ import annotations

import math
import time
from typing import Final

import anyio.lowlevel

__all__ = ["SLICE", "Turns"]

SLICE: Final = 0.002
"""Seconds of work between two turns of the loop: with one more piece, well below 5 ms."""

SHORT: Final = 8
"""Work of so few pieces is done in one go, however long they take."""


class Turns:
    """Yields to the event loop every `SLICE` seconds.

    `if turns.due: await turns.pause()` after each small piece of the work; the look at the clock
    costs 60 ns. What the work makes must not be seen by others before it is done.

    Args:
        slices: Whether to yield at all.
    """

    __slots__ = ("_asked", "_end")

    def __init__(self, *, slices: bool = True) -> None:
        self._asked = 0
        self._end = time.perf_counter() + SLICE if slices else math.inf

    @property
    def due(self) -> bool:
        """Whether the work has run for long enough."""
        self._asked += 1
        return self._asked > SHORT and time.perf_counter() >= self._end

    async def pause(self) -> None:
        """Let other tasks run. Cancellation ends the work here."""
        await anyio.lowlevel.checkpoint()
        self._end = time.perf_counter() + SLICE

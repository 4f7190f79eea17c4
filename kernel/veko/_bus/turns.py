"""Turns: long work on the event loop that lets other tasks run in between."""

from __future__ import annotations

import time
from typing import Final

import anyio.lowlevel

__all__ = ["SLICE", "Turns"]

SLICE: Final = 0.005
"""Seconds of work between two turns of the loop."""


class Turns:
    """Yields to the event loop every `SLICE` seconds.

    `if turns.due: await turns.pause()` after each small piece of the work; the look at the clock
    costs 60 ns. What the work makes must not be seen by others before it is done.
    """

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = time.perf_counter() + SLICE

    @property
    def due(self) -> bool:
        """Whether the work has run for long enough."""
        return time.perf_counter() >= self._end

    async def pause(self) -> None:
        """Let other tasks run. Cancellation ends the work here."""
        await anyio.lowlevel.checkpoint()
        self._end = time.perf_counter() + SLICE

"""Posting: emitting from where nothing can be awaited.

What is posted is emitted soon, in order, by one task of the kernel's. Posting an event that
nobody hears costs a dict lookup.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Final

import anyio

from .bus import Bus

__all__ = ["Posts"]

BACKLOG: Final = 10_000
_log: Final = logging.getLogger("veko")


class Posts:
    """A queue of emissions. Past `BACKLOG` that wait the oldest are dropped, which is logged."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: deque[tuple[Any, ...]] = deque(maxlen=BACKLOG)
        self._posted = anyio.Event()
        self._dropped = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, event: str, *args: Any) -> None:
        """Emit an event soon."""
        if self._bus.heard(event):
            self._dropped += len(self._waiting) == BACKLOG
            self._waiting.append((event, *args))
            self._posted.set()

    async def run(self) -> None:
        """Emit what is posted, until cancelled."""
        while True:
            self._posted = anyio.Event()  # of this loop: the kernel may have run in another
            await self.flush()
            await self._posted.wait()

    async def flush(self) -> None:
        """Emit what waits."""
        while self._waiting:
            event, *args = self._waiting.popleft()
            await self._bus.emit(event, *args)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                _log.warning("%d posted events were dropped: too many at once", dropped)

"""When entries with a time to live are to be removed: one timer for all of them.

Reading checks the moment itself, so an expired entry is never seen, even if this timer is late.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Expiry"]

# Seconds; the clock may be set meanwhile, so a timer waits no longer than this.
_LONGEST: Final = 60.0


class Expiry:
    """Calls a function for each entry whose moment has come.

    Args:
        loop: The engine's event loop.
        remove: Called with namespace and key; it checks that the entry has not been set again.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, remove: Callable[[str, str], object]
    ) -> None:
        self._loop = loop
        self._remove = remove
        self._moments: list[tuple[float, str, str]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, namespace: str, key: str, until: float) -> None:
        """Add an entry, with its moment in seconds since the epoch."""
        heapq.heappush(self._moments, (until, namespace, key))
        if self._moments[0][0] == until:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait = min(max(0.0, self._moments[0][0] - time.time()), _LONGEST)
        self._timer = self._loop.call_later(wait, self._due)

    def _due(self) -> None:
        self._timer = None
        now = time.time()
        due: dict[tuple[str, str], None] = {}
        while self._moments and self._moments[0][0] <= now:
            _, namespace, key = heapq.heappop(self._moments)
            due[namespace, key] = None
        if self._moments:
            self._arm()
        for namespace, key in due:
            self._remove(namespace, key)

    def close(self) -> None:
        """Cancel the timer."""
        self._moments.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

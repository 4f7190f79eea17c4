"""A sliding window: what was counted in the last seconds, in one bucket for each second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

MOST_DURATIONS = 1_000  # in a second
MOST_COUNTERS = 1_000  # in a second; a plugin may make names of what clients send
OTHER = "counter (others)"


class Second:
    """What was counted in one second."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.counts: dict[str, int] = {}
        self.durations: list[float] = []


class Window:
    """The last seconds.

    Args:
        seconds: How many.
        clock: Returns seconds that never go back.
    """

    def __init__(self, seconds: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._length = seconds
        self._seconds: deque[Second] = deque()

    def count(self, counter: str, by: int = 1) -> None:
        counts = self._now().counts
        if counter not in counts and len(counts) >= MOST_COUNTERS:
            counter = OTHER
        counts[counter] = counts.get(counter, 0) + by

    def took(self, seconds: float) -> None:
        """Take note of how long a request took."""
        durations = self._now().durations
        if len(durations) < MOST_DURATIONS:
            durations.append(seconds)

    def counts(self) -> dict[str, int]:
        """Return all counters."""
        self._forget()
        found: dict[str, int] = {}
        for second in self._seconds:
            for counter, count in second.counts.items():
                found[counter] = found.get(counter, 0) + count
        return found

    def quantile(self, share: float) -> float:
        """Return the duration that this share of requests did not exceed; 0 without any."""
        self._forget()
        durations = sorted(one for second in self._seconds for one in second.durations)
        if not durations:
            return 0.0
        return durations[min(len(durations) - 1, int(share * len(durations)))]

    def _now(self) -> Second:
        number = int(self.clock())
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(Second(number))
            self._forget()
        return self._seconds[-1]

    def _forget(self) -> None:
        oldest = int(self.clock()) - self._length
        while self._seconds and self._seconds[0].number <= oldest:
            self._seconds.popleft()

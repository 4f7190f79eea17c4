"""A sliding window: how much was counted in the last so many seconds, in bounded memory.

The window is divided into sixty slices, and only a count for each slice is kept, at most 61 of
them. So what is added counts for the length of the window, and for up to a sixtieth of it longer.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

__all__ = ["SlidingWindow"]

_SLICES: Final = 60


class SlidingWindow:
    """Counts events, or adds amounts up, within a window of time that ends now.

    Args:
        seconds: The length of the window.
    """

    __slots__ = ("_counts", "_slice")

    def __init__(self, seconds: float) -> None:
        self._slice = seconds / _SLICES
        self._counts: deque[tuple[int, float]] = deque(maxlen=_SLICES + 1)

    def add(self, number: float, now: float) -> None:
        """Count events, or add an amount.

        Args:
            number: How many, or how much.
            now: The time in seconds, from a clock that never goes back.
        """
        if number:
            current = math.floor(now / self._slice)
            if self._counts and self._counts[-1][0] == current:
                number += self._counts.pop()[1]
            self._counts.append((current, number))

    def count(self, now: float) -> int:
        """Return how many events happened in the window that ends now."""
        return round(self.sum(now))

    def sum(self, now: float) -> float:
        """Return what was added in the window that ends now."""
        oldest = math.floor(now / self._slice) - _SLICES
        while self._counts and self._counts[0][0] < oldest:
            self._counts.popleft()
        return sum(number for _, number in self._counts)

    def clear(self) -> None:
        """Forget all."""
        self._counts.clear()

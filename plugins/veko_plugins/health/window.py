"""A window that slides over time and counts what happened in it, in bounded memory.

It keeps a count for each sixtieth of the window, at most 61 of them; what happened is left out
between one window and a sixtieth more after it happened. Adding and counting look at those only.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

__all__ = ["Window"]

_SLICES: Final = 60


class Window:
    """Counts what happened within the last so many seconds."""

    __slots__ = ("_counts", "_slice")

    def __init__(self, seconds: float) -> None:
        self._slice = seconds / _SLICES
        self._counts: deque[tuple[int, int]] = deque(maxlen=_SLICES + 1)

    def add(self, number: int, now: float) -> None:
        """Count so many at a time in seconds, which never goes back."""
        if number:
            place = math.floor(now / self._slice)
            if self._counts and self._counts[-1][0] == place:
                number += self._counts.pop()[1]
            self._counts.append((place, number))

    def count(self, now: float) -> int:
        """Return how many happened in the window that ends now."""
        oldest = math.floor(now / self._slice) - _SLICES
        while self._counts and self._counts[0][0] < oldest:
            self._counts.popleft()
        return sum(number for _, number in self._counts)

    def clear(self) -> None:
        """Forget everything."""
        self._counts.clear()

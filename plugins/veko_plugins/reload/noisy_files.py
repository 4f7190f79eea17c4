"""Noisy files: those that a program writes all the time, beside those that people save."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Final

from .._source.scripts import SUFFIXES

__all__ = ["MOST", "NoisyFiles"]

MOST: Final = 10
"""Changes a minute that a file may have; with more it is noisy."""
_MINUTE: Final = 60.0
_SOURCES: Final = (".py", ".toml", *SUFFIXES)


class NoisyFiles:
    """Counts changes by file. Sources are never noisy."""

    def __init__(self) -> None:
        self._times: dict[Path, deque[float]] = {}

    def among(self, changed: Collection[Path]) -> list[Path]:
        """Count a change of each file; returns the noisy ones, unless a source changed too."""
        if any(path.suffix in _SOURCES for path in changed):
            return []
        return [path for path in changed if self._is_noisy(path, time.monotonic())]

    def _is_noisy(self, path: Path, now: float) -> bool:
        times = self._times.setdefault(path, deque(maxlen=MOST))
        if len(times) == MOST and now - times[0] < _MINUTE:
            del self._times[path]
            return True
        times.append(now)
        return False

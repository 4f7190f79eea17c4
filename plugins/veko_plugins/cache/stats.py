"""Counting hits and misses, by namespace."""

from __future__ import annotations

import msgspec

__all__ = ["CacheStats", "Counts"]


class Counts:
    """What is counted for a namespace; see `CacheStats`."""

    __slots__ = ("hits", "misses", "stored")

    def __init__(self) -> None:
        self.hits = self.misses = self.stored = 0


class CacheStats(msgspec.Struct, frozen=True):
    """The counts of a namespace in this process, since the plugin `cache` was loaded.

    Attributes:
        hits: Look-ups that found a value. Those that waited for another's computation count.
        misses: Look-ups that did not.
        stored: Values that were stored.
    """

    hits: int = 0
    misses: int = 0
    stored: int = 0

    @property
    def rate(self) -> float | None:
        """The part of look-ups that were hits; `None` if there were none."""
        total = self.hits + self.misses
        return self.hits / total if total else None

"""Exponential histograms: counts in buckets whose bounds grow by the eighth root of two."""

from __future__ import annotations

import msgspec

__all__ = ["Exponential", "bound"]


class Exponential(msgspec.Struct, frozen=True):
    """A histogram whose bucket `i` counts values in (base**(offset+i), base**(offset+i+1)].

    The base is 2**(2**-3), which is OpenTelemetry's scale 3.

    Attributes:
        offset: The index of the first bucket.
        counts: The count of each bucket.
        zero: How many values were too small for any bucket.
        total: The sum of all values; `None` if nobody added them up.
    """

    offset: int
    counts: list[int]
    zero: int = 0
    total: float | None = None

    @property
    def count(self) -> int:
        """How many values were counted."""
        return self.zero + sum(self.counts)

    @property
    def sum(self) -> float:
        """The sum of all values; without `total` an estimate, at most 4.5% off."""
        if self.total is not None:
            return self.total
        return sum(n * bound(self.offset + i + 0.5) for i, n in enumerate(self.counts) if n)


def bound(index: float) -> float:
    """Return the lower bound of the bucket with this index."""
    return float(2 ** (index / 8))

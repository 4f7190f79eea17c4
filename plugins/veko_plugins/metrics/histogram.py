"""Histograms of durations: counts in buckets that grow by the eighth root of two.

The buckets are those of an OpenTelemetry exponential histogram of scale 3 over nanoseconds, so
they can be exported as they are. A quantile is answered with the geometric middle of its bucket,
at most 4.5% off what was measured. All are integers; a histogram has 129 buckets (1 KiB) up to
66 µs and grows to 321 (up to 18 minutes, which stands for anything longer) once something took
longer.

Finding the bucket of a short duration is one look into a table of 64 KiB, made at import and shared
by all; of a longer one, a bisection.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["SCALE", "SHORT", "SLOTS", "Histogram", "quantile"]

SCALE: Final = 3
"""2**SCALE buckets to each power of two."""
_PER_OCTAVE: Final = 1 << SCALE
_OCTAVES: Final = 40
SHORT: Final = 1 << 16
"""Nanoseconds below which a duration is looked up."""


def _bound(slot: int) -> int:
    """Return the largest duration of a slot in ns: 2**(slot/8), rounded down; exact."""
    return math.isqrt(math.isqrt(math.isqrt(1 << slot)))


_BOUNDS: Final = tuple(_bound(slot) for slot in range(_PER_OCTAVE * _OCTAVES))
SLOTS: Final = b"\0\0" + b"".join(
    bytes([slot]) * (min(_bound(slot), SHORT - 1) - _bound(slot - 1))
    for slot in range(1, 16 * _PER_OCTAVE + 1)
)
"""The slot of each duration below `SHORT`."""


class Histogram:
    """Counts of durations by slot; slot `i` ends at 2**(i/8) ns, the end included.

    Attributes:
        counts: The counts. Whoever times a hot place adds to them in place:
            `counts[SLOTS[took]] += 1` for what took less than `SHORT`.
    """

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (16 * _PER_OCTAVE + 1)

    def add(self, took: int) -> None:
        """Count a duration of so many nanoseconds."""
        slot = bisect.bisect_left(_BOUNDS, took)
        if slot >= len(self.counts):
            self.counts.extend([0] * (len(_BOUNDS) + 1 - len(self.counts)))
        self.counts[slot] += 1


def quantile(counts: Iterable[int], total: int, q: float) -> float | None:
    """Return the duration in seconds that a share `q` of `total` calls did not exceed.

    Returns:
        The geometric middle of the bucket, at most 4.5% off; `None` if there were no calls.
    """
    if not total:
        return None
    rank = max(1, math.ceil(q * total))
    for slot, before in enumerate(itertools.accumulate(counts)):
        if before >= rank:
            return float(2 ** ((slot - 0.5) / _PER_OCTAVE) * 1e-9)
    return None


def merged(many: Sequence[Sequence[int]]) -> list[int]:
    """Add histograms up."""
    return [sum(same) for same in itertools.zip_longest(*many, fillvalue=0)]

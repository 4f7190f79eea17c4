"""Histograms of durations: counts in buckets whose bounds grow by the eighth root of two.

The buckets are those of an OpenTelemetry exponential histogram of scale 3 over nanoseconds, so
they are exported unchanged. A quantile is the geometric middle of its bucket, at most 4.5% off the
measured duration. All counts are integers. A histogram starts with 129 buckets (1 KiB, up to 66 µs)
and grows to 321 at the first longer duration; the last bucket (18 minutes) takes all that is longer
still.

Cost: finding the bucket of a duration below `SHORT` is one index into a table of 64 KiB, which is
made at import and shared by all histograms; of a longer one, a bisection.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Final

from veko import Stop
from veko.errors import counts

__all__ = ["SCALE", "SHORT", "SLOTS", "Histogram", "merged", "quantile", "total_seconds"]

SCALE: Final = 3
"""There are 2**SCALE buckets for each power of two."""
_PER_OCTAVE: Final = 1 << SCALE
_OCTAVES: Final = 40
SHORT: Final = 1 << 16
"""Durations below this, in nanoseconds, are looked up in `SLOTS`."""


def _bound(slot: int) -> int:
    """Return the longest duration of a slot in ns: 2**(slot/8), rounded down.

    Integer roots, because these are exact everywhere: a bound that is one off would put a duration
    into another slot than OpenTelemetry does.
    """
    return math.isqrt(math.isqrt(math.isqrt(1 << slot)))


_BOUNDS: Final = tuple(_bound(slot) for slot in range(_PER_OCTAVE * _OCTAVES))
SLOTS: Final = b"\0\0" + b"".join(
    bytes([slot]) * (min(_bound(slot), SHORT - 1) - _bound(slot - 1))
    for slot in range(1, 16 * _PER_OCTAVE + 1)
)
"""The slot of each duration below `SHORT`, by nanosecond."""


class Histogram:
    """Counts of durations by slot; slot `i` ends at 2**(i/8) ns, inclusive.

    Attributes:
        counts: The counts. Code on a hot path counts a duration below `SHORT` without a call:
            `counts[SLOTS[took]] += 1`.
        errors: How many of the calls have failed.
    """

    __slots__ = ("counts", "errors")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (16 * _PER_OCTAVE + 1)
        self.errors = 0

    def failed(self, error: BaseException) -> None:
        """Count a call that raised as failed, unless it was cancelled or has given an answer."""
        if isinstance(error, (Exception, SystemExit)) and not isinstance(error, Stop):
            self.errors += counts(error)

    def add(self, took: int) -> None:
        """Count a duration in nanoseconds."""
        slot = bisect.bisect_left(_BOUNDS, took)
        if slot >= len(self.counts):
            self.counts.extend([0] * (len(_BOUNDS) + 1 - len(self.counts)))
        self.counts[slot] += 1


def quantile(counts: Iterable[int], total: int, q: float) -> float | None:
    """Return a quantile of the counted durations.

    Args:
        counts: The counts by slot.
        total: Their sum.
        q: Which quantile, from 0 to 1: 0.5 is the median.

    Returns:
        The geometric middle of its bucket in seconds, at most 4.5% off; `None` if `total` is 0.
    """
    if not total:
        return None
    rank = max(1, math.ceil(q * total))
    for slot, up_to_slot in enumerate(itertools.accumulate(counts)):
        if up_to_slot >= rank:
            return _middle(slot)
    return None


def total_seconds(counts: Iterable[int]) -> float:
    """Return the sum of the counted durations in seconds, at most 4.5% off."""
    return sum(count * _middle(slot) for slot, count in enumerate(counts) if count)


def _middle(slot: int) -> float:
    """Return the geometric middle of a bucket in seconds."""
    return float(2 ** ((slot - 0.5) / _PER_OCTAVE) * 1e-9)


def merged(histograms: Sequence[Sequence[int]]) -> list[int]:
    """Add the counts of several histograms up."""
    return [sum(slot) for slot in itertools.zip_longest(*histograms, fillvalue=0)]

"""Latencies between two looks, for those who watch.

Cost: one sum for each plugin and event at each look; a plugin that was called since is merged and
compared with what it was.
"""

from __future__ import annotations

from collections.abc import Mapping

from .histogram import Histogram, merged, quantile

__all__ = ["Window"]


class Window:
    """Measures the calls since the last look.

    Args:
        histograms: The histograms by plugin and event.
    """

    def __init__(self, histograms: Mapping[str, Mapping[str, Histogram]]) -> None:
        self._histograms = histograms
        self._totals: dict[str, int] = {}
        self._counts: dict[str, list[int]] = {}
        self.take()

    def take(self) -> dict[str, float]:
        """Return the 95th percentile of each plugin's calls since the last look, in seconds.

        A plugin without calls is left out.
        """
        found: dict[str, float] = {}
        totals: dict[str, int] = {}
        for name, events in list(self._histograms.items()):
            totals[name] = total = sum(sum(one.counts) for one in events.values())
            before = self._totals.get(name)
            if total == before:
                continue
            counts = merged([one.counts for one in events.values()])
            past = self._counts.get(name, [])
            self._counts[name] = counts
            if before is None or total < before:  # it is new, or was unloaded and loaded
                past, before = [], 0
            fresh = merged([counts, [-count for count in past]])
            if (p95 := quantile(fresh, total - before, 0.95)) is not None:
                found[name] = p95
        self._totals = totals
        for name in self._counts.keys() - totals.keys():
            del self._counts[name]
        return found

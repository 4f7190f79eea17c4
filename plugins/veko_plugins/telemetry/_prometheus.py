"""The way out to Prometheus: readings through its own client library, as text.

An exponential histogram becomes a classic one with a bucket for each power of two that was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from ._readings import Exponential, Family

__all__ = ["Text"]

_PER_OCTAVE: Final = 8
_UNITS: Final = {"ns": ("seconds", 1e-9), "s": ("seconds", 1.0)}


class Text(Collector):
    """Readings in Prometheus's text format.

    Args:
        read: Gives the readings.

    Attributes:
        media_type: Of the text.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, read: Callable[[], Sequence[Family]]) -> None:
        self._read = read
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def __call__(self) -> bytes:
        """Write all that there is now."""
        return generate_latest(self._registry)

    def describe(self) -> list[Any]:
        """Name nothing ahead: what there is changes."""
        return []

    def collect(self) -> Iterator[Any]:
        """Give the families, as the client library asks for them."""
        for family in self._read():
            unit, factor = _UNITS.get(family.unit, ("", 1.0))
            name = _plain(family.name) + (f"_{unit}" if unit else "")
            labels = sorted({key for attributes, _ in family.points for key in attributes})
            kind: Any = {
                "counter": CounterMetricFamily,
                "gauge": GaugeMetricFamily,
                "histogram": HistogramMetricFamily,
            }[family.kind]
            made = kind(name, family.description, labels=[_plain(label) for label in labels])
            for attributes, value in family.points:
                values = [str(attributes.get(label, "")) for label in labels]
                if isinstance(value, Exponential):
                    made.add_metric(values, _buckets(value, factor), value.sum * factor)
                else:
                    made.add_metric(values, value)
            yield made


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _buckets(found: Exponential, factor: float) -> list[tuple[str, float]]:
    """Return cumulative counts by upper bound, one a power of two, and all of them at last."""
    buckets: list[tuple[str, float]] = []
    below = found.zero
    octave = found.offset // _PER_OCTAVE
    for start in range(0, len(found.counts), _PER_OCTAVE):
        within = sum(found.counts[start : start + _PER_OCTAVE])
        below += within
        if within:
            # The offset is a multiple of eight, so an octave of buckets ends at a power of two.
            end = 2.0 ** (octave + start // _PER_OCTAVE + 1)
            buckets.append((f"{end * factor:.6g}", below))
    return [*buckets, ("+Inf", found.count)]

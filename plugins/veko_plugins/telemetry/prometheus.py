"""Export to Prometheus: readings as text, by its own client library.

An exponential histogram becomes a classic one, with a bucket for each power of two in which a
duration was counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from .exponential import Exponential
from .readings import Family

__all__ = ["Text"]

_PER_OCTAVE: Final = 8
_UNITS: Final = {"ns": ("seconds", 1e-9), "s": ("seconds", 1.0)}


class Text(Collector):
    """Writes readings in Prometheus's text format.

    Args:
        read: Returns the readings.

    Attributes:
        media_type: The media type of the text.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, read: Callable[[], Sequence[Family]]) -> None:
        self._read = read
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def __call__(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)

    def describe(self) -> list[Any]:
        """Return nothing: which metrics exist changes over time."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the families in the form of the client library, which calls this."""
        for family in self._read():
            unit, factor = _UNITS.get(family.unit, ("", 1.0))
            name = _plain(family.name) + (f"_{unit}" if unit else "")
            labels = sorted({key for attributes, _ in family.points for key in attributes})
            kind: Any = {
                "counter": CounterMetricFamily,
                "gauge": GaugeMetricFamily,
                "histogram": HistogramMetricFamily,
            }[family.kind]
            converted = kind(name, family.description, labels=[_plain(label) for label in labels])
            for attributes, value in family.points:
                values = [str(attributes.get(label, "")) for label in labels]
                if isinstance(value, Exponential):
                    converted.add_metric(values, _buckets(value, factor), value.sum * factor)
                else:
                    converted.add_metric(values, value)
            yield converted


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _buckets(found: Exponential, factor: float) -> list[tuple[str, float]]:
    """Return cumulative counts by upper bound, one for each power of two, the total last."""
    buckets: list[tuple[str, float]] = []
    below = found.zero
    octave = found.offset // _PER_OCTAVE
    for start in range(0, len(found.counts), _PER_OCTAVE):
        within = sum(found.counts[start : start + _PER_OCTAVE])
        below += within
        if within:
            # Offsets are multiples of eight, so eight buckets end exactly at a power of two.
            end = 2.0 ** (octave + start // _PER_OCTAVE + 1)
            buckets.append((f"{end * factor:.6g}", below))
    return [*buckets, ("+Inf", found.count)]

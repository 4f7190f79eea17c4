"""Readings: all metrics of one moment, in a form that both ways out take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from veko import Kernel

    from ._counting import Counting

__all__ = ["Attributes", "Exponential", "Family", "Point", "read"]

Attributes: TypeAlias = Mapping[str, str | int]


class Exponential(msgspec.Struct, frozen=True):
    """A histogram whose bucket `i` holds what lies in (base**(offset+i), base**(offset+i+1)].

    The base is 2**(2**-3): OpenTelemetry's scale 3.

    Attributes:
        offset: Of the first bucket.
        counts: By bucket.
        zero: How many were too small for a bucket.
        total: The sum of all; made of the middles of the buckets where it is not counted.
    """

    offset: int
    counts: list[int]
    zero: int = 0
    total: float | None = None

    @property
    def count(self) -> int:
        """How many there were."""
        return self.zero + sum(self.counts)

    @property
    def sum(self) -> float:
        """The sum, at most 4.5% off where it is not counted."""
        if self.total is not None:
            return self.total
        return sum(n * bound(self.offset + i + 0.5) for i, n in enumerate(self.counts) if n)


def bound(index: float) -> float:
    """Return the upper bound of the bucket before an index."""
    return float(2 ** (index / 8))


Point: TypeAlias = tuple[Attributes, float | Exponential]


class Family(msgspec.Struct, frozen=True):
    """A metric with all its points.

    Attributes:
        name: As OpenTelemetry writes it.
        kind: `counter` (never goes down), `gauge`, or `histogram`.
        unit: As UCUM has it.
        description: A sentence.
        points: Attributes and values.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    description: str
    points: list[Point]


def read(kernel: Kernel, counting: Counting) -> list[Family]:
    """Read everything."""
    records = [record for record in kernel.records() if not record.core]
    families = [
        Family(
            "veko.hook.duration", "histogram", "ns",
            "How long a plugin's handlers of an event took.", list(_durations(kernel)),
        ),
        Family(
            "veko.plugin.errors", "counter", "{error}", "How often a plugin's code failed.",
            [({"veko.plugin": name}, count) for name, count in counting.errors.items()],
        ),
        Family(
            "veko.emissions", "counter", "{emission}", "Emissions that somebody heard.",
            [({"veko.event": _text(event)}, cell[0]) for event, cell in counting.emissions.items()],
        ),
        Family(
            "veko.plugins", "gauge", "{plugin}", "Loaded plugins of the application.",
            [
                ({"veko.state": state}, sum(record.state == state for record in records))
                for state in ("active", "inactive")
            ],
        ),
        Family(
            "http.server.request.duration", "histogram", "s", "How long requests took.",
            [(dict(key), cell.reading()) for key, cell in counting.requests.items()],
        ),
        Family(
            "http.server.active_requests", "gauge", "{request}", "Requests under way.",
            [({}, counting.under_way)],
        ),
        Family(
            "veko.posts.waiting", "gauge", "{emission}", "Posted emissions that wait.",
            [({}, kernel.waiting)],
        ),
    ]  # fmt: skip
    lag = counting.lag()
    if lag is not None:
        families.append(
            Family(
                "veko.loop.lag", "gauge", "s",
                "How late the event loop was at worst, within the last ten seconds.", [({}, lag)],
            )
        )  # fmt: skip
    return [family for family in families if family.points]


def _text(name: str) -> str:
    """Return a name that can be sent: an event may be called anything."""
    return name.encode("utf-8", "backslashreplace").decode()


def _durations(kernel: Kernel) -> Iterator[Point]:
    entry = kernel.registry.get("service", "metrics")
    if entry is None:
        return
    for record in kernel.records():
        for event, counts in entry.value.histograms(record.name).items():
            attributes = {"veko.event": _text(event), "veko.plugin": record.name}
            yield attributes, Exponential(0, counts[1:], zero=counts[0])

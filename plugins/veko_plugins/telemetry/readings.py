"""Readings: all metrics at one moment, in a form that both exports take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from .._lib.cache_counts import cache_counts
from .exponential import Exponential

if TYPE_CHECKING:
    from veko import Kernel

    from .counting import Counting

__all__ = ["Attributes", "Family", "Point", "read"]

Attributes: TypeAlias = Mapping[str, str | int]
Point: TypeAlias = tuple[Attributes, float | Exponential]


class Family(msgspec.Struct, frozen=True):
    """A metric with all its points.

    Attributes:
        name: The name in OpenTelemetry's style, with dots.
        kind: `counter` (never decreases), `gauge`, or `histogram`.
        unit: The unit as a UCUM code.
        description: One sentence.
        points: A value for each set of attributes.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    description: str
    points: list[Point]


def read(kernel: Kernel, counting: Counting) -> list[Family]:
    """Read all metrics that have a value."""
    records = [record for record in kernel.records() if not record.core]
    families = [
        Family(
            "veko.hook.duration", "histogram", "ns",
            "Duration of a plugin's handlers of an event.", list(_durations(kernel)),
        ),
        Family(
            "veko.plugin.errors", "counter", "{error}", "Errors in a plugin's code.",
            [({"veko.plugin": name}, count) for name, count in counting.errors.items()],
        ),
        Family(
            "veko.emissions", "counter", "{emission}", "Emissions of events with a handler.",
            [({"veko.event": _text(event)}, cell[0]) for event, cell in counting.emissions.items()],
        ),
        Family(
            "veko.plugins", "gauge", "{plugin}", "Loaded plugins of the application by state.",
            [
                ({"veko.state": state}, sum(record.state == state for record in records))
                for state in ("active", "inactive", "failed")
            ],
        ),
        Family(
            "http.server.request.duration", "histogram", "s", "Duration of requests.",
            [(dict(key), cell.reading()) for key, cell in counting.requests.items()],
        ),
        Family(
            "http.server.active_requests", "gauge", "{request}", "Requests under way.",
            [({}, counting.under_way)],
        ),
        Family(
            "veko.posts.waiting", "gauge", "{emission}", "Posted emissions that have not run yet.",
            [({}, kernel.waiting)],
        ),
    ]  # fmt: skip
    families.append(
        Family(
            "veko.cache.lookups", "counter", "{lookup}", "Look-ups in the cache, by plugin.",
            list(_lookups(kernel)),
        )
    )  # fmt: skip
    lag = counting.lag()
    if lag is not None:
        families.append(
            Family(
                "veko.loop.lag", "gauge", "s",
                "Longest delay of the event loop in the last ten seconds.", [({}, lag)],
            )
        )  # fmt: skip
    return [family for family in families if family.points]


def _lookups(kernel: Kernel) -> Iterator[Point]:
    counts_of = cache_counts(kernel)
    if counts_of is None:
        return
    for record in kernel.records():
        counts = counts_of(record.name)
        for result, count in (("hit", counts.hits), ("miss", counts.misses)):
            if count:
                yield {"veko.plugin": record.name, "veko.cache.result": result}, count


def _text(name: str) -> str:
    """Return a name as valid UTF-8: an event may have any name, half of a surrogate pair too."""
    return name.encode("utf-8", "backslashreplace").decode()


def _durations(kernel: Kernel) -> Iterator[Point]:
    entry = kernel.registry.get("service", "metrics")
    if entry is None:
        return
    for record in kernel.records():
        for event, counts in entry.value.histograms(record.name).items():
            attributes = {"veko.event": _text(event), "veko.plugin": record.name}
            yield attributes, Exponential(0, counts[1:], zero=counts[0])

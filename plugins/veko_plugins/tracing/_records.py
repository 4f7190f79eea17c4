"""Records: what is kept of a span while it runs, and the tape that it is written to when it ends.

The idea: as little as will do. A *record* is a list, made once for whatever has spans below it (an
emission, a request, a step of the life cycle). A *place* is `(record, site)`, what the context
variable holds: inside a hook the site of that hook, otherwise `None`. A span that ends is three
entries on the tape: record, site, time. Everything else (ids, wall clock, attributes, parents) is
worked out when the tape is read, in bulk; what somebody asks for earlier is worked out then.

Cost: a list an emission; a short-lived tuple and three entries a hook.
Promise: the id of a span is the same whether it was asked for while it ran or not. Times come from
the monotonic clock, and each trace has one offset to the wall clock: a clock that is set back
moves whole traces, never a span out of its parent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from random import getrandbits
from typing import Any, Final, NamedTuple

from ._sites import MASK, Site

__all__ = [
    "BASE",
    "BEGIN",
    "ID",
    "LAST",
    "MORE",
    "OFFSET",
    "PARENT",
    "REMOTE",
    "SEGMENT",
    "SITE",
    "STATE",
    "TRACE",
    "Dropped",
    "Happening",
    "More",
    "Own",
    "Place",
    "Record",
    "Row",
    "Segment",
    "Unsampled",
    "clock",
    "id_of",
    "more_of",
    "now",
    "offset_of",
    "rows",
    "segment_of",
    "trace_of",
]

clock: Final = time.perf_counter_ns

Record = list[Any]
SEGMENT, PARENT, SITE, BEGIN, LAST, ID, MORE = range(7)
"""A record: its segment; the place that it is below, or `None`; its site; when it began; when the
last span below it ended, as far as the tape was read; its id, 0 until asked; `More` by site."""

Segment = list[Any]
TRACE, REMOTE, OFFSET, BASE, STATE = range(5)
"""A segment, the part of a trace below one entry into this process: the trace's id (16 bytes,
`None` until asked), the id of the span above it elsewhere (0: none), the nanoseconds to the wall
clock (`None` until asked), the OpenTelemetry context that it began in, the tracestate."""

Place = tuple[Record, "Site | None"]


class Own(tuple[Any, ...]):
    """A place below which a hook takes the time of its own begin.

    Elsewhere a hook begins when the one before it has ended, which saves a look at the clock. That
    does not hold for handlers that run at once, nor after one that failed.
    """

    __slots__ = ()


class Unsampled:
    """What the variable holds where nothing is recorded.

    Attributes:
        base: The OpenTelemetry context that it began in, if it was not empty.
        shown: What is shown to OpenTelemetry, once it was asked for.
    """

    __slots__ = ("base", "shown")

    base: Any
    shown: Any

    def __init__(self, base: Any = None) -> None:
        self.base = base
        self.shown = None


class Dropped(Unsampled):
    """The same where nothing is recorded because the tape is full: each span is counted."""

    __slots__ = ()


class Happening(NamedTuple):
    """An event of a span: its name, when (ns since the epoch), its attributes."""

    name: str
    at: int
    attributes: dict[str, Any]


class More:
    """What only few spans have.

    Attributes:
        attributes: Attributes besides those of the site.
        begin: Its own begin, for spans of `Own` places.
        events: What happened in it.
        links: Links to other spans, as OpenTelemetry has them.
        name: A name other than the site's.
        outcome: An outcome other than `ok`.
        description: What the status says of an error.
    """

    __slots__ = ("attributes", "begin", "description", "events", "links", "name", "outcome")

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        self.begin: int | None = None
        self.events: list[Happening] = []
        self.links: list[Any] = []
        self.name: str | None = None
        self.outcome: str | None = None
        self.description: str | None = None


Row = tuple[Site, Segment, int, int, int, int, "More | None"]
"""A span that has ended: site, segment, id, parent (0: none), begin, end, more. Times are in ns
since the epoch. A plain tuple: a named one takes 0.2 µs to make."""


def segment_of(
    trace: bytes | None = None, remote: int = 0, base: Any = None, state: Any = None
) -> Segment:
    """Make a segment."""
    return [trace, remote, None, base, state]


def trace_of(segment: Segment) -> bytes:
    """Return the id of a segment's trace."""
    trace: bytes | None = segment[TRACE]
    if trace is None:
        trace = segment[TRACE] = (getrandbits(128) or 1).to_bytes(16, "big")
    return trace


def offset_of(segment: Segment) -> int:
    """Return the nanoseconds from the monotonic to the wall clock, the same for a whole trace."""
    offset: int | None = segment[OFFSET]
    if offset is None:
        offset = segment[OFFSET] = time.time_ns() - clock()
    return offset


def now(segment: Segment) -> int:
    """Return the time in ns since the epoch as a segment has it."""
    return clock() + offset_of(segment)


def id_of(record: Record, site: Site | None) -> int:
    """Return the id of a record's own span, or of the hook below it that has that site."""
    own: int = record[ID]
    if not own:
        own = record[ID] = getrandbits(64) or 1
    return own if site is None else (own + site.mix) & MASK or 1


def more_of(record: Record, site: Site | None) -> More:
    """Return the `More` of a span, made now if there is none."""
    table: dict[Site | None, More] | None = record[MORE]
    if table is None:
        table = record[MORE] = {}
    more = table.get(site)
    if more is None:
        more = table[site] = More()
    return more


def rows(tape: Iterator[Any]) -> Iterator[Row]:
    """Read a piece of a tape: spans in the order of their ends, hooks before what they are in.

    It costs about 0.3 µs a span; one at a time, so that the collector of garbage never sees them.
    """
    for record, site, end in zip(tape, tape, tape, strict=True):
        segment = record[SEGMENT]
        offset = segment[OFFSET]
        if offset is None:
            offset = offset_of(segment)
        if segment[TRACE] is None:
            trace_of(segment)
        own = record[ID]
        if not own:
            own = record[ID] = getrandbits(64) or 1
        more = record[MORE]
        if more is not None:
            more = more.get(site)
        if site is None:
            place = record[PARENT]
            parent = segment[REMOTE] if place is None else id_of(*place)
            begin = record[BEGIN]
            site = record[SITE]  # noqa: PLW2901
        else:
            begin, record[LAST] = record[LAST], end
            parent, own = own, (own + site.mix) & MASK or 1
            if more is not None and more.begin is not None:
                begin = more.begin
        yield (site, segment, own, parent, begin + offset, end + offset, more)

"""Records: what is kept of an emission and its hooks while they run, and is read when it has ended.

The idea: as little as will do. A *record* is a list, made once for whatever has spans below it (an
emission, a request, a step of the life cycle). A *place* is `(record, site)`, what the context
variable holds: inside a hook the site of that hook, otherwise `None`. A hook that ends adds two
entries to the record of its emission, time and site; a record that ends goes onto the tape. All
else (ids, wall clock, attributes, parents) is worked out when the tape is read, in bulk; what
somebody asks for earlier is worked out then.

Cost: a list an emission; a short-lived tuple and two entries a hook.
Promise: the id of a span is the same whether it was asked for while it ran or not. Times come from
the monotonic clock, and each trace has one offset to the wall clock: a clock that is set back
moves whole traces, never a span out of its parent.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from random import getrandbits
from typing import Any, Final, NamedTuple

from .sites import RANDOM, Site

__all__ = [
    "BASE",
    "BEGIN",
    "ENDS",
    "ID",
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
    "Visit",
    "clock",
    "id_of",
    "more_of",
    "now",
    "offset_of",
    "rows",
    "segment_of",
    "spans_of",
    "table_of",
    "trace_of",
    "unsampled",
]

clock: Final = time.perf_counter_ns

Record = list[Any]
SEGMENT, PARENT, SITE, BEGIN, ID, MORE, ENDS = range(7)
"""A record: its segment; the place that it is below, or `None`; its site; when it began; its id, 0
until asked; `More` by site, or a `Visit`, or nothing; and from `ENDS` on when each hook ended, and
which, by turns, and last when it ended itself. In the place of a hook, `None` says that what is not
told ended there."""

Segment = list[Any]
TRACE, REMOTE, OFFSET, BASE, STATE = range(5)
"""A segment, the part of a trace below one entry into this process: the trace's id (16 bytes,
`None` until asked), the id of the span above it elsewhere (0: none), the nanoseconds to the wall
clock (`None` until asked), the OpenTelemetry context that it began in, the tracestate."""

Place = tuple[Record, "Site | None"]


class Own(tuple[Any, ...]):
    """A place below which a hook takes the time of its own begin.

    Elsewhere a hook begins when what was before it has ended, which saves a look at the clock.
    """

    __slots__ = ()


class Unsampled:
    """What the variable holds where nothing is recorded.

    Attributes:
        base: The OpenTelemetry context that it began in, if it was not empty.
        shown: What is shown to OpenTelemetry, once it was asked for.
        trace: The id of the trace, if somebody was asked about that.
    """

    # Defaults of the class: most of them are made for each emission, and never asked.
    base: Any = None
    shown: Any = None
    trace: bytes | None = None


class Dropped(Unsampled):
    """The same where nothing is recorded because the tape is full: each span is counted."""


def unsampled(base: Any = None, trace: bytes | None = None) -> Unsampled:
    """Return what says that a trace that began in a context, and has an id, is not recorded."""
    made = Unsampled()
    made.base, made.trace = base, trace
    return made


class Happening(NamedTuple):
    """An event of a span: its name, when (ns since the epoch), its attributes."""

    name: str
    at: int
    attributes: dict[str, Any]


class More:
    """What only few spans have.

    Attributes:
        attributes: Attributes besides those of the site.
        begin: Its own begin, where that is not the end of what was before it.
        events: What happened in it.
        links: Links to other spans, as OpenTelemetry has them.
        name: A name other than the site's.
        outcome: An outcome other than `ok`.
        description: What the status says of an error.
    """

    __slots__ = ("attributes", "begin", "description", "events", "links", "name", "outcome")

    def __init__(self, attributes: dict[str, Any] | None = None) -> None:
        self.attributes: dict[str, Any] = {} if attributes is None else attributes
        self.begin: int | None = None
        self.events: Sequence[Happening] = ()
        self.links: Sequence[Any] = ()
        self.name: str | None = None
        self.outcome: str | None = None
        self.description: str | None = None


class Visit(NamedTuple):
    """What a request has besides its site, as it came: what a record has in the place of `More`
    until somebody asks for more."""

    path: str
    client: str | None
    agent: bytes | None

    def attributes(self) -> dict[str, Any]:
        """Return it as attributes."""
        found: dict[str, Any] = {"url.path": self.path}
        if self.client is not None:
            found["client.address"] = self.client
        if self.agent is not None:
            found["user_agent.original"] = self.agent[:256].decode("latin-1")
        return found


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
        own = record[ID] = getrandbits(RANDOM) or 1
    return own if site is None else own | site.mix


def spans_of(tape: Iterable[Record]) -> int:
    """Return how many spans there are on a tape, about."""
    return sum((len(record) - ENDS + 1) // 2 for record in tape)


def table_of(record: Record) -> dict[Site | None, More]:
    """Return the table of `More` of a record, made now if there is none."""
    table: Any = record[MORE]
    if table is None:
        table = record[MORE] = {}
    elif table.__class__ is Visit:
        table = record[MORE] = {None: More(table.attributes())}
    found: dict[Site | None, More] = table
    return found


def more_of(record: Record, site: Site | None) -> More:
    """Return the `More` of a span, made now if there is none."""
    table = table_of(record)
    more = table.get(site)
    if more is None:
        more = table[site] = More()
    return more


def rows(tape: Iterable[Record]) -> Iterator[Row]:
    """Give the spans of a piece of a tape, hooks before what they are in.

    About 0.5 µs a span; one at a time, so that the collector of garbage never sees them.
    """
    for record in tape:
        segment = record[SEGMENT]
        trace_of(segment)
        offset = offset_of(segment)
        own = id_of(record, None)
        table = {} if record[MORE] is None else table_of(record)
        last = record[BEGIN]
        ends = iter(record[ENDS:-1])
        for end, site in zip(ends, ends, strict=True):
            if site is not None:
                more = table.get(site)
                begin = last if more is None or more.begin is None else more.begin
                yield (site, segment, own | site.mix, own, begin + offset, end + offset, more)
            last = end
        place = record[PARENT]
        parent = segment[REMOTE] if place is None else id_of(*place)
        begin, end = record[BEGIN] + offset, record[-1] + offset
        yield (record[SITE], segment, own, parent, begin, end, table.get(None))

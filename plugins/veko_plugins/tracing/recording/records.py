"""Records: what is written down about an emission and its hooks while they run.

The idea: write down as little as possible. A *record* is a list, made once for each thing that can
have spans below it: an emission, a request, a step of the life cycle. A *position* in a trace is
`(record, site)`, which is what the context variable holds: in a hook the site of that hook,
otherwise `None`. A hook that ends appends two entries to the record of its emission, the time and
its site; a record that ends is appended to the tape. Ids, wall-clock times, attributes and parents
are computed in bulk when the tape is read (`rows`), or earlier if somebody asks for them.

Setting the variable is most of what a hook costs, and each hook sets it to a value of its own:
whatever copies the context in a hook (a task, a callback, a thread) keeps what the variable held
then. A position that the hooks of an emission share and change would name a later hook when the
copy is looked at, and Python reports nothing when a context is copied
(test_what_a_hook_begins_stays_below_it).

Cost: a list for each emission; a short-lived tuple and two list entries for each hook.
Promise: a span has the same id whether it is asked for while the span runs or not. Times come from
the monotonic clock, and each trace has one offset to the wall clock: if the wall clock is set back,
whole traces move, but never a span out of its parent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import getrandbits
from typing import Any, Final, NamedTuple

from .sites import ID_BITS, Site

__all__ = [
    "BASE",
    "BEGIN",
    "DETAILS",
    "ENDS",
    "ID",
    "OFFSET",
    "PARENT",
    "REMOTE",
    "SEGMENT",
    "SITE",
    "STATE",
    "TRACE",
    "Details",
    "Dropped",
    "Position",
    "Record",
    "RequestDetails",
    "Segment",
    "SpanEvent",
    "TimedPosition",
    "Unsampled",
    "all_details_of",
    "clock",
    "details_of",
    "id_of",
    "now",
    "offset_of",
    "segment_of",
    "spans_of",
    "trace_of",
    "unsampled",
]

clock: Final = time.perf_counter_ns

Record = list[Any]
SEGMENT, PARENT, SITE, BEGIN, ID, DETAILS, ENDS = range(7)
"""The fields of a record.

`SEGMENT`; `PARENT`, the position that it is below, or `None`; `SITE`; `BEGIN`, a time of `clock`;
`ID`, 0 until it is needed; `DETAILS`, a table of `Details` by site, a `RequestDetails`, or `None`.
From `ENDS` on follow the ends of its hooks, a time and a site by turns, and as the last entry the
end of the record itself. The site `None` marks the end of something that makes no span.
"""

Segment = list[Any]
TRACE, REMOTE, OFFSET, BASE, STATE = range(5)
"""The fields of a segment, the part of a trace below one entry into this process.

`TRACE`, the trace's id (16 bytes, `None` until it is needed); `REMOTE`, the id of the parent span
in another process (0: none); `OFFSET`, nanoseconds from `clock` to the wall clock (`None` until
needed); `BASE`, the OpenTelemetry context that the segment began in; `STATE`, the tracestate.
"""

Position = tuple[Record, "Site | None"]
"""A position in a trace: a record, and the site of the hook in it, or `None`."""


class TimedPosition(tuple[Any, ...]):
    """A position below which every hook reads the clock when it begins.

    Elsewhere a hook begins when the one before it has ended, which saves a reading of the clock.
    After a hook that failed, its error is reported before the next hook is called, and that would
    count as the next hook's time (test_a_hook_after_one_that_failed_has_its_own_time).
    """

    __slots__ = ()


class Unsampled:
    """What the context variable holds in a trace that is not recorded.

    Attributes:
        base: The OpenTelemetry context that the trace began in, if it was not empty.
        context: The context that OpenTelemetry sees, once it was asked for.
        trace: The id of the trace, if the application's sampler was asked about it.
    """

    # Defaults on the class, not in __init__: one of these is made for each emission that is not
    # recorded, and hardly any is ever looked at.
    base: Any = None
    context: Any = None
    trace: bytes | None = None


class Dropped(Unsampled):
    """The same for a trace that is not recorded because the tape is full: its spans are counted."""


def unsampled(base: Any = None, trace: bytes | None = None) -> Unsampled:
    """Return an `Unsampled` for a trace that began in a context, and has an id."""
    mark = Unsampled()
    mark.base, mark.trace = base, trace
    return mark


class SpanEvent(NamedTuple):
    """An event of a span, as OpenTelemetry has it: name, ns since the epoch, attributes."""

    name: str
    time: int
    attributes: dict[str, Any]


class Details:
    """What only few spans have.

    Attributes:
        attributes: Attributes besides those of the site.
        begin: When the span began, if that is not the end of what ran before it.
        events: Its events.
        links: Its links to other spans, as OpenTelemetry has them.
        name: A name other than the site's.
        outcome: An outcome other than `ok`.
        description: The description of an error status.
    """

    __slots__ = ("attributes", "begin", "description", "events", "links", "name", "outcome")

    def __init__(self, attributes: dict[str, Any] | None = None) -> None:
        self.attributes: dict[str, Any] = {} if attributes is None else attributes
        self.begin: int | None = None
        self.events: Sequence[SpanEvent] = ()
        self.links: Sequence[Any] = ()
        self.name: str | None = None
        self.outcome: str | None = None
        self.description: str | None = None


class RequestDetails(NamedTuple):
    """What a request has besides its site, unprocessed.

    Stands in a record's `DETAILS` until something else is added, since nearly every request has
    just this.
    """

    path: str
    client: str | None
    agent: bytes | None

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the span."""
        found: dict[str, Any] = {"url.path": self.path}
        if self.client is not None:
            found["client.address"] = self.client
        if self.agent is not None:
            found["user_agent.original"] = self.agent[:256].decode("latin-1")
        return found


def segment_of(
    trace: bytes | None = None, remote: int = 0, base: Any = None, state: Any = None
) -> Segment:
    """Return a new segment."""
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
    """Return the current time by the clock of a segment, in ns since the epoch."""
    return clock() + offset_of(segment)


def id_of(record: Record, site: Site | None) -> int:
    """Return the id of a record's own span, or of the hook below it that has that site."""
    own: int = record[ID]
    if not own:
        own = record[ID] = getrandbits(ID_BITS) or 1
    return own if site is None else own | site.id_part


def spans_of(tape: Sequence[Record]) -> int:
    """Return about how many spans are on a tape: two entries for each hook, and one at the end."""
    return (sum(map(len, tape)) - (ENDS - 1) * len(tape)) // 2


def all_details_of(record: Record) -> dict[Site | None, Details]:
    """Return the table of `Details` of a record, made at first use."""
    table: Any = record[DETAILS]
    if table is None:
        table = record[DETAILS] = {}
    elif table.__class__ is RequestDetails:
        table = record[DETAILS] = {None: Details(table.attributes())}
    found: dict[Site | None, Details] = table
    return found


def details_of(record: Record, site: Site | None) -> Details:
    """Return the `Details` of a span, made at first use."""
    table = all_details_of(record)
    details = table.get(site)
    if details is None:
        details = table[site] = Details()
    return details

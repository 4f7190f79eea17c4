"""Rows: spans that have ended, read from the tape, one row each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from .records import (
    BEGIN,
    DETAILS,
    ENDS,
    PARENT,
    REMOTE,
    SEGMENT,
    SITE,
    Details,
    Record,
    Segment,
    all_details_of,
    id_of,
    offset_of,
    trace_of,
)
from .sites import Site

__all__ = ["FAILED", "Row", "attributes_of", "outcome_of", "rows"]

FAILED: Final = ("error", "timeout")
"""Outcomes that OpenTelemetry counts as errors."""

Row = tuple[Site, Segment, int, int, int, int, "Details | None"]
"""A span that has ended: site, segment, id, parent's id (0: none), begin, end, details.

Times are in ns since the epoch. A plain tuple, because a named one takes 0.2 µs to make.
"""


def rows(tape: Iterable[Record]) -> Iterator[Row]:
    """Yield the spans on a piece of tape, each hook before its emission.

    Costs about 0.5 µs a span. The rows are yielded one by one so that they die young: a list of
    them would be walked by the garbage collector.
    """
    for record in tape:
        segment = record[SEGMENT]
        trace_of(segment)
        offset = offset_of(segment)
        own = id_of(record, None)
        table = {} if record[DETAILS] is None else all_details_of(record)
        last = record[BEGIN]
        ends = iter(record[ENDS:-1])
        for end, site in zip(ends, ends, strict=True):
            if site is not None:
                details = table.get(site)
                begin = last if details is None or details.begin is None else details.begin
                yield (
                    site,
                    segment,
                    own | site.id_part,
                    own,
                    begin + offset,
                    end + offset,
                    details,
                )
            last = end
        above = record[PARENT]
        parent = segment[REMOTE] if above is None else id_of(*above)
        begin, end = record[BEGIN] + offset, record[-1] + offset
        yield (record[SITE], segment, own, parent, begin, end, table.get(None))


def attributes_of(row: Row) -> dict[str, Any]:
    """Return all attributes of a span."""
    site, *_, details = row
    if details is None:
        return {"veko.outcome": "ok", **site.attributes}
    if not site.id_part:  # a span of the SDK
        return {**site.attributes, **details.attributes}
    return {**site.attributes, "veko.outcome": outcome_of(row), **details.attributes}


def outcome_of(row: Row) -> str:
    """Return the outcome of a span; a hook that was cancelled at its time limit has timed out."""
    site, _, _, _, begin, end, details = row
    outcome = (details.outcome if details is not None else None) or "ok"
    if outcome == "ok":
        outcome = str(site.attributes.get("veko.outcome", outcome))
    if outcome == "cancelled" and site.limit and end - begin >= site.limit:
        return "timeout"
    return outcome

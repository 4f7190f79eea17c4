"""Kept traces as documents of Jaeger's query API, and as a file that its UI opens.

The format is that of `jaeger-query` (`/api/traces`), with times in microseconds. Documents are made
when they are asked for; a trace of 50 spans takes about 2 ms.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from ..recording.context import span_id
from ..recording.records import TRACE, Details
from ..recording.rows import FAILED, Row, attributes_of, outcome_of
from .store import KeptTrace, Store

__all__ = [
    "Query",
    "answer",
    "dependencies",
    "duration",
    "file_of",
    "matching",
    "operations",
    "service_of",
    "trace_json",
]

_UNITS: Final = {"ns": 1e-3, "us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7, "h": 3.6e9}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
_NO_DETAILS: Final = Details()
_MOST_TEXT: Final = 16_384
"""Characters of a text that are shown."""


def duration(text: str) -> int:
    """Return the microseconds of a duration in Go's notation (`1.5s`, `100ms`, `1m30s`).

    Raises:
        ValueError: The text is not a duration.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text[:40]!r} is not a duration: write 100ms, 1.5s")
    whole = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not whole < 2**63:
        raise ValueError(f"{text[:40]!r} is too long a duration")
    return round(whole)


def _tag(key: str, value: Any) -> dict[str, Any]:
    key = _valid_text(key)
    if isinstance(value, bool):
        return {"key": key, "type": "bool", "value": value}
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return {"key": key, "type": "int64", "value": value}
    if isinstance(value, float) and math.isfinite(value):
        return {"key": key, "type": "float64", "value": value}
    if not isinstance(value, str):
        try:
            value = msgspec.json.encode(value, enc_hook=str).decode()
        except Exception:  # the value may be of a plugin's class and raise anything
            value = f"<{type(value).__name__}>"
    return {"key": key, "type": "string", "value": _valid_text(value)}


def _valid_text(text: str) -> str:
    """Return a text of bounded length that is valid UTF-8 (without halves of surrogate pairs)."""
    return text[:_MOST_TEXT].encode("utf-8", "replace").decode()


def _tags(row: Row) -> Iterator[dict[str, Any]]:
    for key, value in attributes_of(row).items():
        yield _tag(str(key), value)
    yield _tag("span.kind", _KINDS[row[0].kind])
    if outcome_of(row) in FAILED:
        yield _tag("error", True)
        yield _tag("otel.status_code", "ERROR")
        if row[6] is not None and row[6].description:
            yield _tag("otel.status_description", row[6].description)


def _name(row: Row) -> str:
    return (row[6] or _NO_DETAILS).name or row[0].name


def _span(row: Row) -> dict[str, Any]:
    _, segment, own, parent, begin, end, details = row
    trace = segment[TRACE].hex()
    above = {"refType": "CHILD_OF", "traceID": trace, "spanID": f"{span_id(parent):016x}"}
    return {
        "traceID": trace,
        "spanID": f"{span_id(own):016x}",
        "flags": 1,
        "operationName": _valid_text(_name(row)),
        "references": [above] if parent else [],
        "startTime": begin // 1000,
        "duration": max(0, end // 1000 - begin // 1000),
        "tags": list(_tags(row)),
        "logs": [
            {
                "timestamp": one.time // 1000,
                "fields": [
                    _tag("event", one.name),
                    *(_tag(str(key), value) for key, value in one.attributes.items()),
                ],
            }
            for one in (details or _NO_DETAILS).events
        ],
        "processID": "p1",
        "warnings": None,
    }


def trace_json(trace: KeptTrace, resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trace in the format of Jaeger's API."""
    spans = [_span(row) for row in sorted(trace.rows, key=lambda row: row[4])]
    warning = f"{trace.dropped} more spans of this trace were not kept"
    return {
        "traceID": trace.id.hex(),
        "spans": spans,
        "processes": {
            "p1": {
                "serviceName": service_of(resource),
                "tags": [_tag(k, v) for k, v in resource.items() if k != "service.name"],
            }
        },
        "warnings": [warning] if trace.dropped else None,
    }


def service_of(resource: Mapping[str, Any]) -> str:
    """Return the name of the service."""
    return str(resource.get("service.name", "veko"))


def answer(data: Any, total: int | None = None, limit: int = 0) -> dict[str, Any]:
    """Wrap data in the envelope of Jaeger's API."""
    found = len(data) if total is None and isinstance(data, list) else total or 0
    return {"data": data, "total": found, "limit": limit, "offset": 0, "errors": None}


def file_of(store: Store, limit: int = 0) -> bytes:
    """Return the kept traces as a file that Jaeger's UI opens ("Upload")."""
    traces = [trace_json(trace, store.resource) for trace in store]
    return msgspec.json.encode(answer(traces[:limit] if limit else traces))


class Query(msgspec.Struct, frozen=True):
    """The filters of `/api/traces`; times in microseconds."""

    operation: str | None = None
    tags: dict[str, str] = {}
    start: int | None = None
    end: int | None = None
    shortest: int | None = None
    longest: int | None = None
    limit: int = 100


def matching(store: Store, query: Query) -> Iterator[KeptTrace]:
    """Yield the traces with a span that passes all filters, the newest first."""
    count = 0
    for trace in store:
        if count >= query.limit:
            return
        if any(_matches(row, query) for row in trace.rows):
            count += 1
            yield trace


def _matches(row: Row, query: Query) -> bool:
    begin, took = row[4] // 1000, (row[5] - row[4]) // 1000
    if query.operation is not None and _name(row) != query.operation:
        return False
    if query.start is not None and begin < query.start:
        return False
    if query.end is not None and begin > query.end:
        return False
    if query.shortest is not None and took < query.shortest:
        return False
    if query.longest is not None and took > query.longest:
        return False
    if not query.tags:
        return True
    tags = {tag["key"]: _as_text(tag["value"]) for tag in _tags(row)}
    return all(tags.get(key) == value for key, value in query.tags.items())


def _as_text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def operations(store: Store) -> list[tuple[str, str]]:
    """Return the names of all kept spans with their kinds, sorted."""
    return sorted({(_name(row), _KINDS[row[0].kind]) for trace in store for row in trace.rows})


def dependencies(store: Store, start: int, end: int) -> list[dict[str, Any]]:
    """Return how often each plugin called another one, directly or through spans of no plugin.

    Args:
        store: The kept traces.
        start: Only spans that began at this time or later, in microseconds.
        end: Only spans that began at this time or earlier.
    """
    counts: dict[tuple[str, str], int] = {}
    for trace in store:
        for parent, child in _edges(trace.rows):
            if start <= child[4] // 1000 <= end:
                pair = (_plugin(parent), _plugin(child))
                counts[pair] = counts.get(pair, 0) + 1
    return [
        {"parent": parent, "child": child, "callCount": count}
        for (parent, child), count in sorted(counts.items())
    ]


def _plugin(row: Row) -> str:
    return str(row[0].attributes.get("veko.plugin", ""))


def _edges(rows: Iterable[Row]) -> Iterator[tuple[Row, Row]]:
    by_id = {row[2]: row for row in rows}

    @functools.cache
    def caller_of(parent: int) -> Row | None:
        # A span may be its own ancestor, if a client sends the id of one of our spans as parent.
        row = by_id.get(parent)
        seen: set[int] = set()
        while row is not None and not _plugin(row) and row[2] not in seen:
            seen.add(row[2])
            row = by_id.get(row[3])
        return row

    for row in by_id.values():
        if _plugin(row):
            caller = caller_of(row[3])
            if caller is not None and _plugin(caller) and _plugin(caller) != _plugin(row):
                yield caller, row

"""Kept traces as Jaeger's query API shows them, and as its UI opens them from a file.

The format is that of `jaeger-query` (`/api/traces`), times in microseconds. Everything here is made
when it is asked for; a trace of 50 spans takes about 2 ms.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from ..export.otlp import FAILED, attributes_of, outcome_of
from ..recording.context import span_id
from ..recording.records import TRACE, More, Row
from .store import Kept, Store

__all__ = ["Query", "dependencies", "duration", "file_of", "matching", "operations", "trace_json"]

_UNITS: Final = {"ns": 1e-3, "us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7, "h": 3.6e9}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
_EMPTY: Final = More()
_LONGEST: Final = 16_384
"""Characters of a text that are shown."""


def duration(text: str) -> int:
    """Read a duration as Go writes it (`1.5s`, `100ms`, `1m30s`); returns microseconds.

    Raises:
        ValueError: It is none.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text[:40]!r} is not a duration: write 100ms, 1.5s")
    whole = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not whole < 2**63:
        raise ValueError(f"{text[:40]!r} is longer than any duration")
    return round(whole)


def _tag(key: str, value: Any) -> dict[str, Any]:
    key = _sound(key)
    if isinstance(value, bool):
        return {"key": key, "type": "bool", "value": value}
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return {"key": key, "type": "int64", "value": value}
    if isinstance(value, float) and math.isfinite(value):
        return {"key": key, "type": "float64", "value": value}
    if not isinstance(value, str):
        try:
            value = msgspec.json.encode(value, enc_hook=str).decode()
        except Exception:  # a value may be of any class, with any bug
            value = f"<{type(value).__name__}>"
    return {"key": key, "type": "string", "value": _sound(value)}


def _sound(text: str) -> str:
    """Return a text that can be sent: of bounded length, without halves of surrogate pairs."""
    return text[:_LONGEST].encode("utf-8", "replace").decode()


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
    return (row[6] or _EMPTY).name or row[0].name


def _span(row: Row) -> dict[str, Any]:
    _, segment, own, parent, begin, end, more = row
    trace = segment[TRACE].hex()
    above = {"refType": "CHILD_OF", "traceID": trace, "spanID": f"{span_id(parent):016x}"}
    return {
        "traceID": trace,
        "spanID": f"{span_id(own):016x}",
        "flags": 1,
        "operationName": _sound(_name(row)),
        "references": [above] if parent else [],
        "startTime": begin // 1000,
        "duration": max(0, end // 1000 - begin // 1000),
        "tags": list(_tags(row)),
        "logs": [
            {
                "timestamp": one.at // 1000,
                "fields": [
                    _tag("event", one.name),
                    *(_tag(str(key), value) for key, value in one.attributes.items()),
                ],
            }
            for one in (more or _EMPTY).events
        ],
        "processID": "p1",
        "warnings": None,
    }


def trace_json(kept: Kept, resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trace as Jaeger has it."""
    spans = [_span(row) for row in sorted(kept.rows, key=lambda row: row[4])]
    lost = f"{kept.lost} more spans of this trace were not kept"
    return {
        "traceID": kept.id.hex(),
        "spans": spans,
        "processes": {
            "p1": {
                "serviceName": service_of(resource),
                "tags": [_tag(k, v) for k, v in resource.items() if k != "service.name"],
            }
        },
        "warnings": [lost] if kept.lost else None,
    }


def service_of(resource: Mapping[str, Any]) -> str:
    """Return the name of the service."""
    return str(resource.get("service.name", "veko"))


def answer(data: Any, total: int | None = None, limit: int = 0) -> dict[str, Any]:
    """Put an answer into Jaeger's envelope."""
    found = len(data) if total is None and isinstance(data, list) else total or 0
    return {"data": data, "total": found, "limit": limit, "offset": 0, "errors": None}


def file_of(store: Store, limit: int = 0) -> bytes:
    """Return the kept traces as a file that Jaeger's UI opens ("Upload")."""
    traces = [trace_json(kept, store.resource) for kept in store]
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


def matching(store: Store, query: Query) -> Iterator[Kept]:
    """Give the traces in which one span has it all, the newest first."""
    count = 0
    for kept in store:
        if count >= query.limit:
            return
        if any(_matches(row, query) for row in kept.rows):
            count += 1
            yield kept


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
    return sorted({(_name(row), _KINDS[row[0].kind]) for kept in store for row in kept.rows})


def dependencies(store: Store, start: int, end: int) -> list[dict[str, Any]]:
    """Return which plugin had which called, how often: the nearest plugins above one another.

    Args:
        store: The traces.
        start: Only spans that began after, in microseconds.
        end: And before.
    """
    counts: dict[tuple[str, str], int] = {}
    for kept in store:
        for parent, child in _edges(kept.rows):
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
    def above(parent: int) -> Row | None:
        row = by_id.get(parent)
        seen: set[int] = set()
        while row is not None and not _plugin(row) and row[2] not in seen:
            seen.add(row[2])
            row = by_id.get(row[3])
        return row

    for row in by_id.values():
        if _plugin(row):
            caller = above(row[3])
            if caller is not None and _plugin(caller) and _plugin(caller) != _plugin(row):
                yield caller, row

"""Kept traces as rows, made of what the service `tracing` returns in Jaeger's format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from .documents import SpanRow, Trace, TraceRow

__all__ = ["trace_of", "trace_row"]


def _tags(span: Mapping[str, Any]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def _parent(span: Mapping[str, Any]) -> str | None:
    return next((one["spanID"] for one in span["references"]), None)


def _first(spans: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the span that no other of the trace is around."""
    spans = list(spans)
    ids = {span["spanID"] for span in spans}
    return next((span for span in spans if _parent(span) not in ids), spans[0])


def trace_row(document: Mapping[str, Any]) -> TraceRow:
    """Return a trace as a row."""
    spans = document["spans"]
    first = _first(spans)
    tags = _tags(first)
    status = next(
        (
            value
            for key in ("http.response.status_code", "http.status_code")
            if isinstance(value := tags.get(key), int)
        ),
        None,
    )
    all_tags = [_tags(span) for span in spans]
    return TraceRow(
        id=document["traceID"],
        name=first["operationName"],
        begin=datetime.fromtimestamp(first["startTime"] / 1e6, UTC),
        duration=first["duration"] / 1e6,
        status=status,
        failed=(status or 0) >= 500 or any(one.get("error") is True for one in all_tags),
        spans=len(spans),
        plugins=tuple(
            sorted({str(one["veko.plugin"]) for one in all_tags if one.get("veko.plugin")})
        ),
    )


def trace_of(document: Mapping[str, Any]) -> Trace:
    """Return a trace with its spans."""
    spans = sorted(document["spans"], key=lambda span: span["startTime"])
    begin = min(span["startTime"] for span in spans)
    ids = {span["spanID"] for span in spans}
    rows = []
    for span in spans:
        tags = _tags(span)
        parent = _parent(span)
        rows.append(
            SpanRow(
                id=span["spanID"],
                parent=parent if parent in ids else None,
                name=span["operationName"],
                begin=(span["startTime"] - begin) / 1e6,
                duration=span["duration"] / 1e6,
                plugin=str(tags["veko.plugin"]) if tags.get("veko.plugin") else None,
                event=str(tags["veko.event"]) if tags.get("veko.event") else None,
                failed=tags.get("error") is True,
                attributes=tags,
            )
        )
    warnings = document.get("warnings") or [""]
    count = str(warnings[0]).partition(" ")[0]
    return Trace(
        trace=trace_row(document),
        spans=tuple(rows),
        dropped=int(count) if count.isdecimal() else 0,
    )

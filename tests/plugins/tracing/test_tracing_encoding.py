"""What is packed in bulk is what is encoded field by field."""

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from veko_plugins.tracing.export.otlp import encode_span, status_field
from veko_plugins.tracing.export.packed import encode
from veko_plugins.tracing.recording.records import RequestDetails, clock, segment_of
from veko_plugins.tracing.recording.rows import Row, attributes_of, outcome_of, rows
from veko_plugins.tracing.recording.sites import SERVER, Site, emission_site

HOOKS = [Site(f"busy.hook{number}", {"veko.handler": f"hook{number}"}) for number in range(20)]
EMISSION = emission_site("tick", 20)
REQUEST = Site("GET /x", {"http.request.method": "GET"}, SERVER)


def emission(hooks: Sequence[Site | None], segment: list[Any], parent: Any = None) -> list[Any]:
    ends = [entry for hook in hooks for entry in (clock(), hook)]
    return [segment, parent, EMISSION, clock(), 0, None, *ends, clock()]


def field_by_field(row: Row) -> bytes:
    site, segment, own, parent, begin, end, details = row
    return encode_span(
        segment[0],
        own.to_bytes(8, "little"),
        parent.to_bytes(8, "little") if parent else b"",
        site.name,
        site.kind,
        begin,
        end,
        attributes_of(row),
        [] if details is None else details.events,
        [] if details is None else details.links,
        status_field(outcome_of(row), None),
    )


def parsed(parts: list[bytes]) -> list[Any]:
    """The spans, with their attributes in alphabetical order."""
    scope = ScopeSpans.FromString(b"".join(parts))
    for span in scope.spans:
        span.attributes.sort(key=lambda pair: pair.key)
    return list(scope.spans)


def same_spans(parts: list[bytes], records: list[list[Any]]) -> None:
    """Compare with the same field by field; the order of the fields in a span is open."""
    wanted = [field_by_field(row) for row in rows(records)]
    assert parsed(parts) == parsed(wanted)
    assert len(b"".join(parts)) == len(b"".join(wanted))


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_emissions_of_any_length(count: int) -> None:
    hooks = HOOKS[:count]
    above = emission(HOOKS[:1], segment_of(b"\1" * 16, 7))
    below = emission(hooks, above[0], (above, HOOKS[0]))
    records = [above, below, emission(hooks, segment_of()), emission(hooks, segment_of())]
    parts: list[bytes] = []
    assert encode(records, parts) == 2 + 3 * (count + 1)
    same_spans(parts, records)
    spans = parsed(parts)
    assert spans[0].parent_span_id == spans[1].span_id
    assert spans[1].parent_span_id == (7).to_bytes(8, "little")
    assert spans[2 + count].parent_span_id == spans[0].span_id


def test_hooks_end_in_any_order_and_some_make_no_span() -> None:
    one, two, three = HOOKS[:3]
    chains = [(one, two, three), (three, one), (one, None, two), (None,), (one, two, three), ()]
    records = [emission(chain, segment_of()) for chain in chains]
    parts: list[bytes] = []
    encode(records, parts)
    same_spans(parts, records)


PATHS = {
    "empty": "",
    "short": "/x",
    "of two bytes a character": "/é" * 80,
    "cut": "/" + "x" * 20_000,
    "cut, of two bytes a character": "é" * 16_400,
    "no text": "\ud800",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("agent", [None, b"agent/1.0"])
def test_requests_with_any_path(path: str, agent: bytes | None) -> None:
    details = RequestDetails(path, "127.0.0.1", agent)
    record = [segment_of(), None, REQUEST, clock(), 0, details, clock()]
    parts: list[bytes] = []
    assert encode([record], parts) == 1
    same_spans(parts, [record])

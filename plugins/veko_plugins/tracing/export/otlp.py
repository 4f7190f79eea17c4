"""Encoding spans as OTLP protobuf, field by field.

Spans of one site have most of their bytes in common; these are encoded once. Some 2 µs a span that
carries attributes of its own, some 10 µs one that carries more; for those that carry nothing more
see `_packed`.

Promise: what cannot be encoded is left out, attribute by attribute, never the span.

The format: opentelemetry-proto, `opentelemetry/proto/trace/v1/trace.proto`.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..recording.records import STATE, TRACE, Happening, More, Row, Visit
from ..recording.sites import Site

__all__ = [
    "FAILED",
    "Scope",
    "attributes_of",
    "encode_plain",
    "encode_row",
    "encode_span",
    "field",
    "key_values",
    "outcome_of",
    "plain_tail",
    "request",
    "status_field",
    "varint",
    "visit_pairs",
]

_CHILD: Final = struct.Struct("<16s2sQ2sQ1sQ1sQ")
_ROOT: Final = struct.Struct("<16s2sQ1sQ1sQ")
FAILED: Final = ("error", "timeout")
"""Outcomes that are errors to OpenTelemetry."""
_MASK: Final = 2**64 - 1
_FIXED64: Final = struct.Struct("<Q")
_DOUBLE: Final = struct.Struct("<d")
_LONGEST: Final = 16_384
"""Characters of a text that are sent."""
_MOST: Final = 128
"""Attributes of a span or an event that are sent, as the SDK has it by default."""


def varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, body: bytes) -> bytes:
    """Encode a field that has a length: a text, bytes, a message."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def _text(value: str) -> bytes:
    return value[:_LONGEST].encode("utf-8", "replace")


def _any_value(value: Any, depth: int = 0) -> bytes | None:
    """Encode an `AnyValue`; `None` if there is no such value."""
    if isinstance(value, str):
        return field(1, _text(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            return field(1, str(value)[:64].encode())
        return b"\x18" + varint(value & _MASK)
    if isinstance(value, float):
        return b"\x21" + _DOUBLE.pack(value)
    if isinstance(value, bytes):
        return field(7, value[:_LONGEST])
    if depth < 4 and isinstance(value, Mapping):
        return field(6, b"".join(_key_values(value, 1, depth + 1)))
    if depth < 4 and isinstance(value, Sequence):
        items = (_any_value(one, depth + 1) for one in value[:_MOST])
        return field(5, b"".join(field(1, item) for item in items if item is not None))
    return None


def _key_values(attributes: Mapping[Any, Any], number: int, depth: int = 0) -> Iterable[bytes]:
    left = _MOST
    for key, value in attributes.items():
        if not isinstance(key, str) or not key or not left:
            continue
        try:
            encoded = _any_value(value, depth)
        except Exception:  # a value may be of any class, with any bug
            continue
        if encoded is not None:
            left -= 1
            yield field(number, field(1, _text(key)) + field(2, encoded))


def key_values(attributes: Mapping[Any, Any], number: int) -> bytes:
    """Encode attributes as `KeyValue` fields of a number; what has no encoding is left out."""
    return b"".join(_key_values(dict(attributes), number))


def status_field(outcome: str | None, description: str | None) -> bytes:
    """Encode the status of a span; nothing unless it failed."""
    if outcome not in FAILED:
        return b""
    return field(15, (field(2, _text(description)) if description else b"") + b"\x18\x02")


def attributes_of(row: Row) -> dict[str, Any]:
    """Return all attributes of a span."""
    site, *_, more = row
    if more is None:
        return {"veko.outcome": "ok", **site.attributes}
    if not site.mix:  # a span of the SDK's
        return {**site.attributes, **more.attributes}
    return {**site.attributes, "veko.outcome": outcome_of(row), **more.attributes}


def outcome_of(row: Row) -> str:
    """Return the outcome of a span: a hook that was cancelled at its limit has timed out."""
    site, _, _, _, begin, end, more = row
    outcome = (more.outcome if more is not None else None) or "ok"
    if outcome == "ok":
        outcome = str(site.attributes.get("veko.outcome", outcome))
    if outcome == "cancelled" and site.limit and end - begin >= site.limit:
        return "timeout"
    return outcome


def plain_tail(site: Site) -> bytes:
    """Encode what the spans of a site that carry nothing more have in common."""
    tail: bytes | None = site.wire.get(None)
    if tail is None:
        attributes = {"veko.outcome": "ok", **site.attributes}
        tail = field(5, _text(site.name)) + b"\x30" + varint(site.kind) + key_values(attributes, 9)
        tail += status_field(attributes["veko.outcome"], None)
        site.wire[None] = tail
    return tail


def encode_row(row: Row) -> bytes:
    """Encode a span as a `spans` field of a `ScopeSpans`."""
    site, segment, own, parent, begin, end, more = row
    if segment[STATE] is None and (more is None or _only_attributes(site, more)):
        pairs = b"" if more is None else b"".join([pair(*one) for one in more.attributes.items()])
        return encode_plain(site, segment[TRACE], own, parent, begin, end, pairs)
    more = more or More()
    return encode_span(
        segment[TRACE],
        _FIXED64.pack(own),
        _FIXED64.pack(parent) if parent else b"",
        more.name or site.name,
        site.kind,
        begin,
        end,
        attributes_of(row),
        more.events,
        more.links,
        status_field(outcome_of(row), more.description),
        segment[STATE],
    )


def encode_plain(
    site: Site, trace: bytes, own: int, parent: int, begin: int, end: int, pairs: bytes
) -> bytes:
    """Encode a span that carries at most attributes besides those of its site."""
    tail = site.wire.get(None) or plain_tail(site)
    if parent:
        head = b"\x12" + varint(2 + _CHILD.size + len(tail) + len(pairs)) + b"\x0a\x10"
        ids = _CHILD.pack(trace, b"\x12\x08", own, b"\x22\x08", parent, b"9", begin, b"A", end)
    else:
        head = b"\x12" + varint(2 + _ROOT.size + len(tail) + len(pairs)) + b"\x0a\x10"
        ids = _ROOT.pack(trace, b"\x12\x08", own, b"9", begin, b"A", end)
    return b"".join((head, ids, tail, pairs))


def _only_attributes(site: Site, more: More) -> bool:
    """Tell whether a span carries nothing but attributes besides what its site has."""
    return (
        more.outcome is None
        and more.name is None
        and not more.events
        and not more.links
        and len(more.attributes) < _MOST
        and site.attributes.keys().isdisjoint(more.attributes)
    )


def pair(key: Any, value: Any) -> bytes:
    """Encode an attribute of a span; nothing if it has no encoding."""
    if value.__class__ is str and key.__class__ is str and len(value) <= 256:
        return _short(key, value)
    return key_values({key: value}, 9)


@functools.lru_cache(maxsize=4096)
def _short(key: str, value: str) -> bytes:
    return key_values({key: value}, 9)


def visit_pairs(path: str, client: str | None, agent: bytes | None) -> bytes:
    """Encode the attributes of a request that its site has not."""
    return pair("url.path", path) + _client_pairs(client, agent)


@functools.lru_cache(maxsize=1024)
def _client_pairs(client: str | None, agent: bytes | None) -> bytes:
    attributes = Visit("", client, agent).attributes()
    del attributes["url.path"]
    return key_values(attributes, 9)


def encode_span(
    trace: bytes,
    own: bytes,
    parent: bytes,
    name: str,
    kind: int,
    begin: int,
    end: int,
    attributes: Mapping[str, Any],
    events: Iterable[Happening],
    links: Iterable[tuple[Any, Mapping[str, Any]]],
    status: bytes,
    state: Any = None,
) -> bytes:
    """Encode any span as a `spans` field of a `ScopeSpans`."""
    body = [field(1, trace), field(2, own)]
    if state:
        body.append(field(3, _text(state.to_header())))
    if parent:
        body.append(field(4, parent))
    body += [field(5, _text(str(name))), b"\x30", varint(kind)]
    body += [b"9", _FIXED64.pack(begin & _MASK), b"A", _FIXED64.pack(end & _MASK)]
    body.append(key_values(attributes, 9))
    for happening in list(events)[-_MOST:]:
        at = b"\x09" + _FIXED64.pack(happening.at & _MASK)
        told = field(2, _text(str(happening.name))) + key_values(happening.attributes, 3)
        body.append(field(11, at + told))
    for context, more in list(links)[-_MOST:]:
        ids = field(1, context.trace_id.to_bytes(16, "big"))
        ids += field(2, context.span_id.to_bytes(8, "big"))
        body.append(field(13, ids + key_values(more, 4)))
    body.append(status)
    return field(2, b"".join(body))


class Scope:
    """What spans are sent with: the resource, and the instrumentation scope.

    Args:
        resource: Attributes of the process.
        name: The scope's name.
        version: Its version.
    """

    def __init__(self, resource: Mapping[str, Any], name: str, version: str) -> None:
        self.resource = field(1, key_values(resource, 1))
        self.scope = field(1, field(1, _text(name)) + field(2, _text(version)))


def request(scope: Scope, parts: list[bytes], others: Mapping[bytes, list[bytes]] = {}) -> bytes:
    """Join encoded spans to an `ExportTraceServiceRequest`.

    Args:
        scope: What they are sent with.
        parts: Our spans.
        others: Spans of other instrumentation scopes, by the encoded scope.
    """
    groups = [field(2, scope.scope + b"".join(parts))] if parts else []
    groups += [field(2, name + b"".join(spans)) for name, spans in others.items()]
    return field(1, scope.resource + b"".join(groups))

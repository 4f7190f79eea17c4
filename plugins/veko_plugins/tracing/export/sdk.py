"""The OpenTelemetry SDK: the application's `TracerProvider`, or one of our own.

With a provider of the application's, hooks end up where its own spans do. Processors that only
collect what has ended (`BatchSpanProcessor`, `SimpleSpanProcessor`) get our spans in bulk, as the
`ReadableSpan`s that they expect; that costs about 4 µs a span, and what their exporter costs. All
others get ordinary spans, begun and ended, but after the fact: when the tape is read.
With `otlp` and no provider we set one up, whose spans (those that plugins start) go out with ours.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ReadableSpan,
    Span,
    SpanLimits,
    SpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from veko import __version__

from ..recording.context import Context, number_of, span_id
from ..recording.records import (
    BASE,
    STATE,
    TRACE,
    Happening,
    More,
    Record,
    Row,
    rows,
    segment_of,
)
from ..recording.sites import Site
from .otlp import FAILED, attributes_of, encode_span, field, outcome_of, status_field

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Ended",
    "Replay",
    "application_provider",
    "encode_readable",
    "is_own",
    "listen",
    "own_provider",
    "readable",
    "resource_attributes",
    "row_of",
    "sampler_of",
]

_log: Final = logging.getLogger("veko.tracing")
_KINDS: Final = (SpanKind.INTERNAL, SpanKind.INTERNAL, SpanKind.SERVER)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
SCOPE: Final = InstrumentationScope("veko", __version__)
_PLAIN: Final = (BatchSpanProcessor, SimpleSpanProcessor)
_UNSET: Final = Status(StatusCode.UNSET)


class Ended(SpanProcessor):
    """Takes the spans that plugins start by the ordinary interface, for a taker that may change."""

    def __init__(self) -> None:
        self.take: Callable[[ReadableSpan], None] | None = None

    def on_end(self, span: ReadableSpan) -> None:
        """Hand a span on that has ended."""
        take = self.take
        if take is not None and span.context is not None and span.context.trace_flags.sampled:
            take(span)


_own: list[tuple[TracerProvider, Ended]] = []


def application_provider() -> TracerProvider | None:
    """Return the SDK's provider that is in use, ours included; `None` if there is none."""
    provider = trace.get_tracer_provider()
    return provider if isinstance(provider, TracerProvider) else None


def own_provider(resource: Mapping[str, Any], ratio: float) -> Ended:
    """Set up our provider and put it in use, if that is not done yet.

    Returns:
        What takes the spans that plugins start.
    """
    if _own:
        return _own[0][1]
    sampler = DEFAULT_ON if ratio >= 1 else ParentBased(TraceIdRatioBased(max(0.0, ratio)))
    provider = TracerProvider(
        sampler, Resource.create(dict(resource)), shutdown_on_exit=False, span_limits=SpanLimits()
    )
    ended = Ended()
    provider.add_span_processor(ended)
    if application_provider() is None:
        trace.set_tracer_provider(provider)
    _own.append((provider, ended))
    return ended


def listen(provider: TracerProvider) -> Ended:
    """Return what takes the spans of the application's provider."""
    active = provider._active_span_processor
    for processor in getattr(active, "_span_processors", ()):
        if isinstance(processor, Ended):
            return processor
    ended = Ended()
    provider.add_span_processor(ended)
    return ended


def is_own(provider: TracerProvider) -> bool:
    """Tell whether a provider is the one that we set up."""
    return any(provider is ours for ours, _ in _own)


class _Replayed(Span):
    """An ordinary span that is begun and ended after the fact."""


class Replay:
    """Hands our spans to a provider's processors.

    Args:
        provider: The application's provider.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._plain: tuple[SpanProcessor, ...] = ()
        self._others: tuple[SpanProcessor, ...] = ()
        self._seen: Any = None

    def ordinary(self) -> bool:
        """Tell whether some processor gets ordinary spans."""
        self._look()
        return bool(self._others)

    def _look(self) -> None:
        active = self.provider._active_span_processor
        found: Sequence[SpanProcessor] = getattr(active, "_span_processors", (active,))
        if found is not self._seen:
            self._seen = found
            self._plain = tuple(one for one in found if type(one) in _PLAIN)
            rest = (one for one in found if type(one) not in _PLAIN)
            self._others = tuple(one for one in rest if not isinstance(one, Ended))

    def __call__(self, records: Iterable[Record]) -> None:
        """Hand spans on."""
        self._look()
        resource = self.provider.resource
        for row in rows(records) if self._plain or self._others else ():
            span = readable(row, resource)
            for processor in self._plain:
                processor.on_end(span)
            for processor in self._others:
                _replay(span, processor, row[1][BASE])


def _replay(span: ReadableSpan, processor: SpanProcessor, base: Any) -> None:
    ids = span.context
    assert ids is not None
    live = _Replayed(
        span.name,
        ids,
        span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=span.events,
        links=span.links,
        kind=span.kind,
        span_processor=processor,
        instrumentation_scope=span.instrumentation_scope,
        record_exception=False,
        set_status_on_exception=False,
    )
    live.start(span.start_time, base)
    if span.status.status_code is StatusCode.ERROR:
        live.set_status(span.status)
    live.end(span.end_time)


def sampler_of(provider: TracerProvider) -> Callable[[Site, Context], tuple[bytes, bool]] | None:
    """Return what asks the provider's sampler about a trace that begins; `None`: all are wanted.

    It answers with the id of the trace, too: by that others may be asked again, and shall agree.
    """
    sampler: Sampler = provider.sampler
    if sampler in (ALWAYS_ON, DEFAULT_ON):
        return None
    ids = provider.id_generator

    @functools.cache
    def tell(kind: str) -> None:
        _log.warning(
            "the application's sampler raises %s: what it fails for is not traced. "
            "This is said once",
            kind,
        )

    def wanted(site: Site, context: Context) -> tuple[bytes, bool]:
        kind, attributes = _KINDS[site.kind], site.attributes
        trace = ids.generate_trace_id()
        try:
            answer = sampler.should_sample(context, trace, site.name, kind, attributes)
            sampled = answer.decision is Decision.RECORD_AND_SAMPLE
        except Exception as error:  # it is the application's; what is emitted is not to suffer
            tell(type(error).__name__)
            sampled = False
        return trace.to_bytes(16, "big"), sampled

    return wanted


def readable(row: Row, resource: Resource) -> ReadableSpan:
    """Make a `ReadableSpan` of a span."""
    site, segment, own, parent, begin, end, more = row
    trace_id = int.from_bytes(segment[TRACE], "big")
    state = segment[STATE] or TraceState()
    above = None
    if parent:
        above = SpanContext(trace_id, span_id(parent), False, _SAMPLED, state)
    status = _UNSET
    if outcome_of(row) in FAILED:
        status = Status(StatusCode.ERROR, None if more is None else more.description)
    return ReadableSpan(
        (more.name if more is not None else None) or site.name,
        SpanContext(trace_id, span_id(own), False, _SAMPLED, state),
        above,
        resource,
        attributes_of(row),
        [] if more is None else [_event(one) for one in more.events],
        [] if more is None else [trace.Link(ids, told) for ids, told in more.links],
        _KINDS[site.kind],
        None,
        status,
        begin,
        end,
        SCOPE,
    )


def _event(happening: Happening) -> Any:
    from opentelemetry.sdk.trace import Event

    return Event(happening.name, happening.attributes, happening.at)


def encode_readable(span: ReadableSpan) -> tuple[bytes, bytes]:
    """Encode a span of the SDK's: its instrumentation scope, and the span."""
    scope = span.instrumentation_scope
    name = b""
    if scope is not None:
        name = field(1, scope.name.encode("utf-8", "replace"))
        name += field(2, (scope.version or "").encode("utf-8", "replace"))
    ids = span.context
    assert ids is not None
    error = span.status.status_code is StatusCode.ERROR
    encoded = encode_span(
        ids.trace_id.to_bytes(16, "big"),
        ids.span_id.to_bytes(8, "big"),
        span.parent.span_id.to_bytes(8, "big") if span.parent is not None else b"",
        span.name,
        span.kind.value + 1,
        span.start_time or 0,
        span.end_time or 0,
        span.attributes or {},
        [Happening(e.name, e.timestamp, dict(e.attributes or {})) for e in span.events],
        [(link.context, dict(link.attributes or {})) for link in span.links],
        status_field("error" if error else None, span.status.description),
        ids.trace_state or None,
    )
    return field(1, name), encoded


def row_of(span: ReadableSpan) -> Row:
    """Turn a span of the SDK's into one of ours, to be kept beside them."""
    ids = span.context
    assert ids is not None
    more = More()
    more.events = [Happening(e.name, e.timestamp, dict(e.attributes or {})) for e in span.events]
    if span.status.status_code is StatusCode.ERROR:
        more.outcome, more.description = "error", span.status.description
    site = Site(span.name, dict(span.attributes or {}), span.kind.value + 1)
    site.mix = 0
    segment = segment_of(ids.trace_id.to_bytes(16, "big"))
    parent = number_of(span.parent.span_id) if span.parent is not None else 0
    own = number_of(ids.span_id)
    return site, segment, own, parent, span.start_time or 0, span.end_time or 0, more


def resource_attributes(service: str | None) -> dict[str, Any]:
    """Return the attributes of this process, those of the environment included."""
    given: dict[str, Any] = {} if service is None else {"service.name": service}
    found = dict(Resource.create(given).attributes)
    if str(found.get("service.name", "")).startswith("unknown_service"):
        found["service.name"] = "veko"
    found.setdefault("process.pid", os.getpid())
    found.setdefault("host.name", socket.gethostname())
    return found

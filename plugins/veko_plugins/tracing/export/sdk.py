"""The OpenTelemetry SDK: the application's `TracerProvider`, or one of our own.

If the application has a provider, spans of hooks go where its own spans go. Processors that only
collect ended spans (`BatchSpanProcessor`, `SimpleSpanProcessor`) get ours in bulk, as the
`ReadableSpan`s that they expect; that costs about 4 µs a span, plus the cost of their exporter. All
other processors get ordinary spans that are started and ended, but late: when the tape is read.
With `otlp` and no provider, Veko sets up its own, so that spans which plugins start are sent along
with those of hooks.
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
    Event,
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
from ..recording.records import BASE, STATE, TRACE, Details, Record, SpanEvent, segment_of
from ..recording.rows import FAILED, Row, attributes_of, outcome_of, rows
from ..recording.sites import Site
from .otlp import encode_span, field, status_field

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Replay",
    "SpanListener",
    "application_provider",
    "encode_readable",
    "is_own",
    "listener_on",
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


class SpanListener(SpanProcessor):
    """Receives the spans that plugins start by OpenTelemetry's own interface.

    A provider cannot be rid of a processor again, so this one stays; `receive` is exchanged.

    Attributes:
        receive: Called with each sampled span that has ended, on any thread; `None`: nobody.
    """

    def __init__(self) -> None:
        self.receive: Callable[[ReadableSpan], None] | None = None

    def on_end(self, span: ReadableSpan) -> None:
        """Hand on a span that has ended."""
        receive = self.receive
        if receive is not None and span.context is not None and span.context.trace_flags.sampled:
            receive(span)


_own: list[tuple[TracerProvider, SpanListener]] = []


def application_provider() -> TracerProvider | None:
    """Return the SDK's provider in use, which may be ours; `None` if there is none."""
    provider = trace.get_tracer_provider()
    return provider if isinstance(provider, TracerProvider) else None


def own_provider(resource: Mapping[str, Any], ratio: float) -> SpanListener:
    """Set up our provider and put it in use, unless that has been done.

    Args:
        resource: The attributes of the process.
        ratio: The share of traces beginning with a span of a plugin that is recorded.

    Returns:
        The listener on its spans.
    """
    if _own:
        return _own[0][1]
    sampler = DEFAULT_ON if ratio >= 1 else ParentBased(TraceIdRatioBased(max(0.0, ratio)))
    provider = TracerProvider(
        sampler, Resource.create(dict(resource)), shutdown_on_exit=False, span_limits=SpanLimits()
    )
    listener = SpanListener()
    provider.add_span_processor(listener)
    if application_provider() is None:
        trace.set_tracer_provider(provider)
    _own.append((provider, listener))
    return listener


def listener_on(provider: TracerProvider) -> SpanListener:
    """Return the listener on the spans of the application's provider, added at first use."""
    active = provider._active_span_processor
    for processor in getattr(active, "_span_processors", ()):
        if isinstance(processor, SpanListener):
            return processor
    listener = SpanListener()
    provider.add_span_processor(listener)
    return listener


def is_own(provider: TracerProvider) -> bool:
    """Return whether a provider is the one that we set up."""
    return any(provider is ours for ours, _ in _own)


class _Replayed(Span):
    """An ordinary span that is started and ended late, with the times of the recorded one.

    A class of its own because `Span` refuses to be instantiated directly.
    """


class Replay:
    """Hands our spans to a provider's processors.

    Args:
        provider: The application's provider.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._plain: tuple[SpanProcessor, ...] = ()
        self._others: tuple[SpanProcessor, ...] = ()
        self._sorted: Any = None

    def ordinary(self) -> bool:
        """Return whether some processor needs ordinary spans."""
        self._sort_processors()
        return bool(self._others)

    def _sort_processors(self) -> None:
        active = self.provider._active_span_processor
        found: Sequence[SpanProcessor] = getattr(active, "_span_processors", (active,))
        if found is not self._sorted:
            self._sorted = found
            self._plain = tuple(one for one in found if type(one) in _PLAIN)
            rest = (one for one in found if type(one) not in _PLAIN)
            self._others = tuple(one for one in rest if not isinstance(one, SpanListener))

    def __call__(self, records: Iterable[Record]) -> None:
        """Hand the spans of records to the processors."""
        self._sort_processors()
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
    """Return a function that asks the provider's sampler about a new trace.

    It returns the id of the trace as well as the decision, because a sampler that is asked again by
    that id, in another process say, has to come to the same decision.

    Returns:
        `None` if the sampler records all traces.
    """
    sampler: Sampler = provider.sampler
    if sampler in (ALWAYS_ON, DEFAULT_ON):
        return None
    ids = provider.id_generator

    @functools.cache
    def log_failure(kind: str) -> None:
        _log.warning(
            "the application's sampler raises %s; traces for which it fails are not recorded. "
            "This is logged once",
            kind,
        )

    def wanted(site: Site, context: Context) -> tuple[bytes, bool]:
        kind, attributes = _KINDS[site.kind], site.attributes
        trace = ids.generate_trace_id()
        try:
            answer = sampler.should_sample(context, trace, site.name, kind, attributes)
            sampled = answer.decision is Decision.RECORD_AND_SAMPLE
        except Exception as error:  # the application's sampler may raise anything
            log_failure(type(error).__name__)
            sampled = False
        return trace.to_bytes(16, "big"), sampled

    return wanted


def readable(row: Row, resource: Resource) -> ReadableSpan:
    """Turn a row into a `ReadableSpan`."""
    site, segment, own, parent, begin, end, details = row
    trace_id = int.from_bytes(segment[TRACE], "big")
    state = segment[STATE] or TraceState()
    above = None
    if parent:
        above = SpanContext(trace_id, span_id(parent), False, _SAMPLED, state)
    status = _UNSET
    if outcome_of(row) in FAILED:
        status = Status(StatusCode.ERROR, None if details is None else details.description)
    return ReadableSpan(
        (details.name if details is not None else None) or site.name,
        SpanContext(trace_id, span_id(own), False, _SAMPLED, state),
        above,
        resource,
        attributes_of(row),
        [] if details is None else [_event(one) for one in details.events],
        [] if details is None else [trace.Link(*link) for link in details.links],
        _KINDS[site.kind],
        None,
        status,
        begin,
        end,
        SCOPE,
    )


def _event(event: SpanEvent) -> Event:
    return Event(event.name, event.attributes, event.time)


def encode_readable(span: ReadableSpan) -> tuple[bytes, bytes]:
    """Encode a span of the SDK; return its encoded instrumentation scope, and the span."""
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
        [SpanEvent(e.name, e.timestamp, dict(e.attributes or {})) for e in span.events],
        [(link.context, dict(link.attributes or {})) for link in span.links],
        status_field("error" if error else None, span.status.description),
        ids.trace_state or None,
    )
    return field(1, name), encoded


def row_of(span: ReadableSpan) -> Row:
    """Turn a span of the SDK into a row, to be kept beside ours."""
    ids = span.context
    assert ids is not None
    details = Details()
    details.events = [SpanEvent(e.name, e.timestamp, dict(e.attributes or {})) for e in span.events]
    if span.status.status_code is StatusCode.ERROR:
        details.outcome, details.description = "error", span.status.description
    site = Site(span.name, dict(span.attributes or {}), span.kind.value + 1)
    site.id_part = 0
    segment = segment_of(ids.trace_id.to_bytes(16, "big"))
    parent = number_of(span.parent.span_id) if span.parent is not None else 0
    own = number_of(ids.span_id)
    return site, segment, own, parent, span.start_time or 0, span.end_time or 0, details


def resource_attributes(service: str | None) -> dict[str, Any]:
    """Return the attributes of this process, including those from the environment."""
    given: dict[str, Any] = {} if service is None else {"service.name": service}
    found = dict(Resource.create(given).attributes)
    if str(found.get("service.name", "")).startswith("unknown_service"):
        found["service.name"] = "veko"
    found.setdefault("process.pid", os.getpid())
    found.setdefault("host.name", socket.gethostname())
    return found

"""What OpenTelemetry sees: a runtime context whose variable may hold a position of ours.

The variable is that of OpenTelemetry's own runtime context, so contexts attached before and after
this was installed are the same. Where it holds a position (see `records`), a real `Context` with a
real `Span` is made when somebody asks for it: a plugin that starts a span, a propagator, a log
record. So spans of plugins nest below the hook that they run in, and handlers that do not use
OpenTelemetry pay nothing. Asking costs about 2 µs.

`OTEL_PYTHON_CONTEXT=veko` makes OpenTelemetry use this runtime context from the start (entry point
group `opentelemetry_context`); if OpenTelemetry was imported without that, `install` replaces the
default one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from random import getrandbits
from typing import Any, Final

import opentelemetry.context as _api
from opentelemetry.context.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.trace.status import Status, StatusCode

from veko_plugins._lib.otel_context import VekoContext

from .errors import note_error
from .records import (
    BASE,
    SEGMENT,
    STATE,
    Position,
    SpanEvent,
    TimedPosition,
    Unsampled,
    details_of,
    id_of,
    now,
    trace_of,
)

__all__ = [
    "SPAN_KEY",
    "VARIABLE",
    "Context",
    "LiveSpan",
    "context_of",
    "install",
    "number_of",
    "position_in",
    "remote_of",
    "span_id",
]

SPAN_KEY: Final[str] = _SPAN_KEY
_POSITION: Final = "veko-position"
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED | getattr(TraceFlags, "RANDOM_TRACE_ID", 0))


def _swap(number: int) -> int:
    """Reverse the bytes of an id.

    Our ids are packed as little-endian numbers, together with times, which OTLP has little-endian;
    OpenTelemetry reads the same bytes as a big-endian number.
    """
    return int.from_bytes(number.to_bytes(8, "little"), "big")


span_id = number_of = _swap
"""Convert a record's id to OpenTelemetry's, and back."""


class LiveSpan(Span):
    """A span that is being recorded, with OpenTelemetry's interface.

    It ends when the hook, emission or request ends, not by `end()`. What is set on it after it was
    read from the tape is lost.
    """

    __slots__ = ("position",)

    def __init__(self, position: Position) -> None:
        self.position = position

    def get_span_context(self) -> SpanContext:
        """Return the ids."""
        record, site = self.position
        segment = record[SEGMENT]
        return SpanContext(
            int.from_bytes(trace_of(segment), "big"),
            span_id(id_of(record, site)),
            is_remote=False,
            trace_flags=_SAMPLED,
            trace_state=segment[STATE] or TraceState(),
        )

    def is_recording(self) -> bool:
        """Return `True`: what is set on it is recorded."""
        return True

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: the span ends with the code that it stands for."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute."""
        details_of(*self.position).attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes."""
        details_of(*self.position).attributes.update(attributes)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Add an event."""
        time = now(self.position[0][SEGMENT]) if timestamp is None else timestamp
        details = details_of(*self.position)
        details.events = [*details.events, SpanEvent(name, time, dict(attributes or {}))]

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        """Add a link."""
        details = details_of(*self.position)
        details.links = [*details.links, (context, dict(attributes or {}))]

    def update_name(self, name: str) -> None:
        """Set another name."""
        details_of(*self.position).name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status; an error status makes the outcome `error`."""
        code = status.status_code if isinstance(status, Status) else status
        details = details_of(*self.position)
        if code is StatusCode.ERROR:
            details.outcome = "error"
            details.description = status.description if isinstance(status, Status) else description

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Record an exception as an event; the status of the span stays as it is."""
        details = details_of(*self.position)
        outcome, description = details.outcome, details.description
        error_type = details.attributes.get("error.type")
        note_error(details, self.position[0][SEGMENT], exception)
        details.outcome, details.description = outcome, description
        if error_type is None:
            details.attributes.pop("error.type", None)
        if attributes and details.events:
            details.events[-1].attributes.update(attributes)


def context_of(held: Any) -> Context:
    """Return the OpenTelemetry context for a value of the variable."""
    if isinstance(held, tuple):
        base = held[0][SEGMENT][BASE] or {}
        return Context({**base, SPAN_KEY: LiveSpan(_plain(held)), _POSITION: held})
    if isinstance(held, Unsampled):
        if held.context is None:
            base = held.base or {}
            if remote_of(base.get(SPAN_KEY)) is None:
                trace = (
                    getrandbits(128) if held.trace is None else int.from_bytes(held.trace, "big")
                )
                ids = SpanContext(trace or 1, getrandbits(64) or 1, is_remote=False)
                base = {**base, SPAN_KEY: NonRecordingSpan(ids)}
            held.context = Context(base)
        context: Context = held.context
        return context
    return held if isinstance(held, Context) else Context()


def _plain(held: tuple[Any, ...]) -> Position:
    """Return a position that is no `TimedPosition`."""
    record, site = held
    return record, site


def position_in(context: Mapping[str, Any]) -> Position | TimedPosition | None:
    """Return the position that a context was made from; `None` if it was not made by us."""
    return context.get(_POSITION)


def remote_of(span: Any) -> tuple[bytes, int, bool, TraceState | None] | None:
    """Return trace, id, whether it is sampled, and tracestate of a span that is not ours.

    Returns:
        `None` if there is no valid span.
    """
    if not isinstance(span, Span):
        return None
    ids = span.get_span_context()
    if not ids.is_valid:
        return None
    return (
        ids.trace_id.to_bytes(16, "big"),
        number_of(ids.span_id),
        ids.trace_flags.sampled,
        ids.trace_state or None,
    )


_EMPTY: Final = Context()


def _variable() -> ContextVar[Any]:
    found = getattr(_api._RUNTIME_CONTEXT, "_current_context", None)
    return found if isinstance(found, ContextVar) else ContextVar("veko_trace", default=_EMPTY)


VARIABLE: Final = _variable()


def install() -> bool:
    """Make OpenTelemetry use our runtime context, for the rest of the process.

    It is not removed at unload: without positions of ours it does what the default one does.

    Returns:
        Whether it is in use. If not, because the application uses a third one, spans that plugins
        start do not nest below hooks.
    """
    runtime = _api._RUNTIME_CONTEXT
    VekoContext.resolve = staticmethod(context_of)
    if isinstance(runtime, VekoContext):
        return True
    if getattr(runtime, "_current_context", None) is not VARIABLE:
        return False
    _api._RUNTIME_CONTEXT = VekoContext(VARIABLE)
    return True

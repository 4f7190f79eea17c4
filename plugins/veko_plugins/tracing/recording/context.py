"""What OpenTelemetry sees: a runtime context whose variable may hold a place of ours.

The variable is the one of OpenTelemetry's own runtime context, so that contexts attached before
and after are the same. Where it holds a place (see `_records`), a real `Context` with a real
`Span` is made when somebody asks: a plugin that starts a span, a propagator, a log record. So
spans of plugins nest below the hook that they run in, and those who do not ask pay nothing.

`OTEL_PYTHON_CONTEXT=veko` makes OpenTelemetry use it from the start (entry point group
`opentelemetry_context`); where OpenTelemetry was imported without that, `install` puts it in place
of the default one. Asking costs about 2 µs.
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

from .errors import note
from .records import (
    BASE,
    SEGMENT,
    STATE,
    Happening,
    Own,
    Place,
    Unsampled,
    id_of,
    more_of,
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
    "placed",
    "remote_of",
    "span_id",
]

SPAN_KEY: Final[str] = _SPAN_KEY
_PLACE: Final = "veko-place"
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED | getattr(TraceFlags, "RANDOM_TRACE_ID", 0))


def _swap(number: int) -> int:
    """Ids are written as little-endian numbers; OpenTelemetry reads their bytes the other way."""
    return int.from_bytes(number.to_bytes(8, "little"), "big")


span_id = number_of = _swap
"""From a record's id to OpenTelemetry's, and back."""


class LiveSpan(Span):
    """A span that is being recorded, as OpenTelemetry's interface has it.

    What is set on it once it has been read from the tape is lost; it ends when the code that it
    stands for ends, not by `end()`.
    """

    __slots__ = ("place",)

    def __init__(self, place: Place) -> None:
        self.place = place

    def get_span_context(self) -> SpanContext:
        """Return the ids."""
        record, site = self.place
        segment = record[SEGMENT]
        return SpanContext(
            int.from_bytes(trace_of(segment), "big"),
            span_id(id_of(record, site)),
            is_remote=False,
            trace_flags=_SAMPLED,
            trace_state=segment[STATE] or TraceState(),
        )

    def is_recording(self) -> bool:
        """Tell whether what is set on it is kept."""
        return True

    def end(self, end_time: int | None = None) -> None:
        """Do nothing: it ends with the code that it stands for."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute."""
        more_of(*self.place).attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes."""
        more_of(*self.place).attributes.update(attributes)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Add an event."""
        at = now(self.place[0][SEGMENT]) if timestamp is None else timestamp
        more = more_of(*self.place)
        more.events = [*more.events, Happening(name, at, dict(attributes or {}))]

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        """Add a link."""
        more = more_of(*self.place)
        more.links = [*more.links, (context, dict(attributes or {}))]

    def update_name(self, name: str) -> None:
        """Give it another name."""
        more_of(*self.place).name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status; an error becomes the outcome."""
        code = status.status_code if isinstance(status, Status) else status
        more = more_of(*self.place)
        if code is StatusCode.ERROR:
            more.outcome = "error"
            more.description = status.description if isinstance(status, Status) else description

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Record an exception."""
        more = more_of(*self.place)
        before = more.outcome, more.description, more.attributes.get("error.type")
        note(more, self.place[0][SEGMENT], exception)
        more.outcome, more.description = before[:2]
        if before[2] is None:
            more.attributes.pop("error.type", None)
        if attributes and more.events:
            more.events[-1].attributes.update(attributes)


def context_of(held: Any) -> Context:
    """Return the OpenTelemetry context that stands for what the variable holds."""
    if isinstance(held, tuple):
        base = held[0][SEGMENT][BASE] or {}
        return Context({**base, SPAN_KEY: LiveSpan(_plain(held)), _PLACE: held})
    if isinstance(held, Unsampled):
        if held.shown is None:
            base = held.base or {}
            if remote_of(base.get(SPAN_KEY)) is None:
                trace = (
                    getrandbits(128) if held.trace is None else int.from_bytes(held.trace, "big")
                )
                ids = SpanContext(trace or 1, getrandbits(64) or 1, is_remote=False)
                base = {**base, SPAN_KEY: NonRecordingSpan(ids)}
            held.shown = Context(base)
        shown: Context = held.shown
        return shown
    return held if isinstance(held, Context) else Context()


def _plain(held: tuple[Any, ...]) -> Place:
    record, site = held
    return record, site


def placed(context: Mapping[str, Any]) -> Place | Own | None:
    """Return the place that a context was made from, if it was made from one."""
    return context.get(_PLACE)


def remote_of(span: Any) -> tuple[bytes, int, bool, TraceState | None] | None:
    """Return trace, id, whether it is sampled, and the tracestate of a span that is not ours."""
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
    """Let OpenTelemetry use our runtime context; it stays, being the default one otherwise.

    Returns:
        Whether spans of plugins nest below hooks: not if another runtime context is in use.
    """
    runtime = _api._RUNTIME_CONTEXT
    VekoContext.resolve = staticmethod(context_of)
    if isinstance(runtime, VekoContext):
        return True
    if getattr(runtime, "_current_context", None) is not VARIABLE:
        return False
    _api._RUNTIME_CONTEXT = VekoContext(VARIABLE)
    return True

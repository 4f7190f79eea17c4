"""Log records carry the ids of the trace and the span in which they were logged.

Every record of the standard library's logging gets `trace_id` and `span_id` in hexadecimal, `"0"`
outside of a trace, and the attributes `otelTraceID` and `otelSpanID` of OpenTelemetry's own
instrumentation, so that formats written for that keep working. A record logged with a `trace_id` of
its own (`extra`) keeps that one. At unload the factory of records is put back, unless another
factory has been put on top of ours meanwhile.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from opentelemetry.trace.propagation import get_current_span

from .context import VARIABLE, Context, span_id
from .records import SEGMENT, id_of, trace_of

__all__ = ["LogIds"]

_OURS: Final = frozenset(("trace_id", "span_id", "otelTraceID", "otelSpanID"))


class _Fields(dict[str, Any]):
    """The fields of a record, which pretend not to contain ours.

    `logging` raises if a key of `extra` is a field already; one of ours may be overwritten.
    """

    __slots__ = ()

    def __contains__(self, key: object) -> bool:
        return key not in _OURS and super().__contains__(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # so a record is unpickled where Veko is not installed


class LogIds:
    """A factory of log records that knows the span in which they are made."""

    def __init__(self) -> None:
        self._before = logging.getLogRecordFactory()
        self._on = False

    def install(self) -> None:
        """Put the factory in place."""
        self._before = logging.getLogRecordFactory()
        self._on = True
        logging.setLogRecordFactory(self)

    def remove(self) -> None:
        """Remove the factory; below another one it stays, and changes nothing any more."""
        self._on = False
        if logging.getLogRecordFactory() is self:
            logging.setLogRecordFactory(self._before)

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """Make a record."""
        record = self._before(*args, **kwargs)
        if self._on:
            trace, span = _ids()
            record.__dict__ = _Fields(
                record.__dict__,
                trace_id=trace,
                span_id=span,
                otelTraceID=trace,
                otelSpanID=span,
            )
        return record


def _ids() -> tuple[str, str]:
    held = VARIABLE.get()
    if isinstance(held, tuple):
        record, site = held
        return trace_of(record[SEGMENT]).hex(), f"{span_id(id_of(record, site)):016x}"
    if isinstance(held, Context) and held:
        ids = get_current_span(held).get_span_context()
        if ids.is_valid:
            return f"{ids.trace_id:032x}", f"{ids.span_id:016x}"
    return "0", "0"

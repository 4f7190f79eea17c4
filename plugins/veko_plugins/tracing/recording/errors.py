"""Errors on spans: the outcome, and the stack, once in each trace.

An error that passes through several spans (a hook, its emission, the request) is recorded with its
stack on the innermost one only. Costs some 50 µs, for the text of the stack; the error itself is
not kept.
"""

from __future__ import annotations

import traceback
from typing import Final

from ..._lib.masking import masked_text
from .records import Details, Segment, SpanEvent, now, trace_of

__all__ = ["note_error"]

_STACK: Final = 16_384
"""Characters of a stack that are kept, half of them from its end."""
_SEEN: Final = "_veko_recorded"


def note_error(details: Details, segment: Segment, error: BaseException) -> None:
    """Write an error down on a span: its status, and an event with the stack.

    The event is left out if another span of the trace has it.
    """
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else _full(kind)
    details.outcome = "error"
    try:
        message = masked_text(str(error))
    except Exception:  # its __str__ is the plugin's code
        message = "<no text>"
    details.description = f"{kind.__name__}: {message}"[:1024]
    details.attributes.setdefault("error.type", name)
    trace = trace_of(segment)
    if getattr(error, _SEEN, None) == trace:
        return
    try:
        setattr(error, _SEEN, trace)
    except Exception:
        pass  # an error without a __dict__ may be recorded twice
    try:
        stack = masked_text("".join(traceback.format_exception(error)))
    except Exception:
        stack = ""
    if len(stack) > _STACK:
        stack = f"{stack[: _STACK // 2]}\n...\n{stack[-_STACK // 2 :]}"
    attributes = {
        "exception.type": name,
        "exception.message": message[:4096],
        "exception.stacktrace": stack,
    }
    details.events = [*details.events, SpanEvent("exception", now(segment), attributes)]


def _full(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

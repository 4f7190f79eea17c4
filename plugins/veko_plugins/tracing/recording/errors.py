"""What is noted of an error: the outcome of the span, and its stack, once a trace.

An error that passes through many spans, a hook, the emission, the request, is told where it came up
first. Some 50 µs, for the text of the stack; the error itself is not kept.
"""

from __future__ import annotations

import traceback
from typing import Final

from .records import Happening, More, Segment, now, trace_of

__all__ = ["note"]

_STACK: Final = 16_384
"""Characters of a stack that are kept."""
_SEEN: Final = "_veko_recorded"


def note(more: More, segment: Segment, error: BaseException) -> None:
    """Note an error on a span: status, and an event with the stack if no other span has it."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else _full(kind)
    more.outcome = "error"
    try:
        told = str(error)
    except Exception:
        told = "<no text>"
    more.description = f"{kind.__name__}: {told}"[:1024]
    more.attributes.setdefault("error.type", name)
    trace = trace_of(segment)
    if getattr(error, _SEEN, None) == trace:
        return
    try:
        setattr(error, _SEEN, trace)
    except Exception:
        pass  # without a __dict__ it may be told twice
    try:
        stack = "".join(traceback.format_exception(error))
    except Exception:
        stack = ""
    if len(stack) > _STACK:
        stack = f"{stack[: _STACK // 2]}\n...\n{stack[-_STACK // 2 :]}"
    attributes = {
        "exception.type": name,
        "exception.message": told[:4096],
        "exception.stacktrace": stack,
    }
    more.events = [*more.events, Happening("exception", now(segment), attributes)]


def _full(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

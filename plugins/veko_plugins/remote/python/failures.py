"""Errors as they cross the border: what the other side needs to raise them again.

Their class, text, status, faults, notes and causes; of the traceback, the frames that are not
Veko's own, as file, line and function.

Cost: one walk of the traceback for an error that crosses.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

from veko import VekoError
from veko.errors import Fault, counts, text_of
from veko.extend import location_of, of_veko

from ..protocol import RemoteError, is_plain

__all__ = [
    "DEPTH",
    "MOST_FRAMES",
    "ORIGIN",
    "Ending",
    "contained",
    "failure_of",
    "said",
    "with_state",
]

MOST_FRAMES: Final = 40
"""Frames of one error that cross, the innermost ones."""
DEPTH: Final = 4
"""Errors in a chain of causes that cross."""
ORIGIN: Final = "_veko_wire"
"""The attribute with the failure as which an error has come over the border."""
_STATE: Final = "_veko_state"
"""The attribute with the state of the request that an error has ended."""
_PLAIN: Final = ("plugin", "event", "step", "status", "code", "reason")


def failure_of(error: BaseException, source: Any = None, *, traces: bool = True) -> dict[str, Any]:
    """Return an error as it crosses the border.

    Args:
        error: The error. One that came over the border goes back as it came.
        source: The file or folder of the plugin, to find the line that is its own.
        traces: Whether to say where in the code it was raised. A worker need not know where in
            the host, or in other plugins.
    """
    origin = getattr(error, ORIGIN, None)
    if origin is not None:
        failure = dict(origin)
    elif isinstance(error, RemoteError):
        failure = said(error)
    else:
        failure = _made(error, source)
    return failure if traces else _without_traces(failure)


def _made(error: BaseException, source: Any) -> dict[str, Any]:
    if isinstance(error, Ending) and error.__cause__ is not None:
        error = error.__cause__
    failure = _failure(error, source, DEPTH)
    state = getattr(error, _STATE, None)
    if state:
        failure["more"]["state"] = state
    return failure


def with_state(error: BaseException, state: Mapping[str, Any]) -> None:
    """Let an error carry the request's state: what the plugin left there counts all the same."""
    plain = {key: value for key, value in state.items() if is_plain(value)}
    if plain:
        setattr(error, _STATE, plain)


def _failure(error: BaseException, source: Any, depth: int) -> dict[str, Any]:
    kind = type(error)
    more: dict[str, Any] = {
        "module": kind.__module__,
        "bases": [one.__name__ for one in kind.__mro__[1:-1]],
        "frames": _frames(error.__traceback__),
    }
    if not counts(error):
        more["counts"] = False
    found: dict[str, Any] = {"type": kind.__name__, "message": _text(error), "more": more}
    found["stack"] = "".join(traceback.format_exception(error, limit=-MOST_FRAMES))
    where = location_of(error, source)
    if where is not None:
        found["file"], found["line"] = where.path, where.line
    if isinstance(error, VekoError):
        found["remedy"] = error.remedy
        if error.path is not None:
            more["path"], more["line"] = str(error.path), error.line
    for name in _PLAIN:
        value = getattr(error, name, None)
        if isinstance(value, str) or type(value) is int:
            (found if name in ("status", "code") else more)[name] = value
    faults: Sequence[Any] = getattr(error, "faults", ())
    if faults:
        more["faults"] = [[one.path, one.message] for one in faults if isinstance(one, Fault)]
    if found.get("status") is not None:
        more["headers"] = dict(getattr(error, "headers", None) or {})
        listed = getattr(error, "errors", None) or ()
        more["errors"] = [[getattr(one, f, "") for f in _HTTP_FAULT] for one in listed]
    notes = getattr(error, "__notes__", ())
    if notes:
        more["notes"] = [str(note) for note in notes]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and depth:
        more["cause"] = _failure(cause, source, depth - 1)
    if isinstance(error, BaseExceptionGroup) and depth:
        more["group"] = [_failure(one, source, depth - 1) for one in error.exceptions[:DEPTH]]
    return found


_HTTP_FAULT: Final = ("detail", "location", "name")


def _text(error: BaseException) -> str:
    if isinstance(error, VekoError):
        detail = getattr(error, "detail", None)
        return detail if isinstance(detail, str) else error.message
    if isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], str):
        return error.args[0]
    return text_of(error)


def _frames(trace: TracebackType | None) -> list[list[object]]:
    found: list[list[object]] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        if not of_veko(trace.tb_frame):
            found.append([code.co_filename, trace.tb_lineno, code.co_qualname])
        trace = trace.tb_next
    return found[-MOST_FRAMES:]


class Ending(Exception):
    """Stands for a `SystemExit` or a `KeyboardInterrupt` of the plugin's, its cause.

    A handler may fail, but it may not end the process that it shares with the others.
    """


def contained(call: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a function of the plugin's as one that the other side may call.

    Args:
        call: A function, `def` or `async def`.
    """

    @functools.wraps(call)
    async def called(*args: Any, **named: Any) -> Any:
        try:
            answer = call(*args, **named)
            return await answer if inspect.isawaitable(answer) else answer
        except (SystemExit, KeyboardInterrupt) as error:
            raise Ending from error

    return called


def _without_traces(failure: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in failure.items() if key not in _TRACES}
    more = failure.get("more")
    if isinstance(more, Mapping):
        found["more"] = {key: value for key, value in more.items() if key not in _TRACES}
        group = more.get("group")
        if isinstance(group, list):
            parts = [one for one in group if isinstance(one, Mapping)]
            found["more"]["group"] = [_without_traces(one) for one in parts]
    return found


_TRACES: Final = ("stack", "file", "line", "column", "frames", "path", "cause")


def said(error: RemoteError) -> dict[str, Any]:
    """Return what the other side has said of an error."""
    return {
        "type": error.type,
        "message": error.message,
        "stack": error.stack,
        "file": error.file,
        "line": error.line,
        "column": error.column,
        "status": error.status,
        "code": error.code,
        "remedy": error.remedy,
        "more": getattr(error, "more", None) or {},
    }

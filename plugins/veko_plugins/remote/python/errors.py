"""Errors between two Python processes: what is raised on one side is raised again on the other.

Veko's errors and Python's own become the same class again. Of any other, a class of the same name
is made, below the nearest class that is known, so `except ValueError` still catches it. The frames
of the plugin and its libraries travel as file, line and function, and become a traceback that shows
the plugin's lines and leads no debugger anywhere.

Cost: one walk of the traceback for an error that crosses, some 10 µs a frame where it is rebuilt.
Promise: what comes from the other side chooses among known classes and never runs code.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, TypeVar

from veko import VekoError, errors
from veko.errors import Fault, counts, text_of
from veko.extend import location_of, of_veko

from ..protocol import RemoteError, is_plain

__all__ = ["Ending", "across", "contained", "error_of", "failure_of", "state_of", "with_state"]

_T = TypeVar("_T")
MOST_FRAMES: Final = 40
"""Frames of one error that cross, the innermost ones."""
DEPTH: Final = 4
"""Errors in a chain of causes that cross."""
_ORIGIN: Final = "_veko_wire"
"""The attribute with the failure as which an error has come over the border."""
_STATE: Final = "_veko_state"
"""The attribute with the state of the request that an error has ended."""
_PLAIN: Final = ("plugin", "event", "step", "status", "code", "reason")
_SAFE: Final[dict[str, type[Exception]]] = {}
"""Python's own classes that one text makes an instance of."""
_made: dict[tuple[str, str, str], type[BaseException]] = {}


for _name, _kind in vars(builtins).items():
    if isinstance(_kind, type) and issubclass(_kind, Exception):
        try:
            _kind("text")
        except TypeError:  # UnicodeDecodeError and the like
            continue
        _SAFE[_name] = _kind


def failure_of(error: BaseException, source: Any = None) -> dict[str, Any]:
    """Return an error as it crosses the border.

    Args:
        error: The error. One that came over the border goes back as it came.
        source: The file or folder of the plugin, to find the line that is its own.
    """
    origin = getattr(error, _ORIGIN, None)
    if origin is not None:
        return dict(origin)
    if isinstance(error, RemoteError):
        return _said(error)
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


def state_of(error: BaseException) -> Mapping[str, Any]:
    """Return the state of a request as the worker has left it when this error was raised."""
    origin = getattr(error, _ORIGIN, None)
    more = origin.get("more") if isinstance(origin, Mapping) else None
    state = more.get("state") if isinstance(more, Mapping) else None
    return state if isinstance(state, Mapping) else {}


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


async def across(call: Awaitable[_T]) -> _T:
    """Await a call to the other side; what that raised is raised as the class that it was."""
    try:
        return await call
    except RemoteError as error:
        raise error_of(_said(error)) from None


def _said(error: RemoteError) -> dict[str, Any]:
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


def error_of(failure: Mapping[str, Any]) -> Exception:
    """Return an error to raise for one that crossed the border.

    Args:
        failure: What the other side said of it; `more` may be missing, as it is in what other
            runtimes send.
    """
    error = _error(failure, DEPTH)
    setattr(error, _ORIGIN, dict(failure))
    return error


def _error(failure: Mapping[str, Any], depth: int) -> Exception:
    found = failure.get("more")
    more: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    name, message = str(failure.get("type") or "Error"), str(failure.get("message") or "")
    group = more.get("group")
    if isinstance(group, list) and group and depth:
        error: Exception = ExceptionGroup(
            message, [_error(one, depth - 1) for one in group if isinstance(one, Mapping)]
        )
    else:
        error = _instance(name, message, failure, more)
    if more.get("counts") is False and counts(error):
        error.counts = False  # type: ignore[attr-defined]
    for note in _texts(more.get("notes")):
        error.add_note(note)
    cause = more.get("cause")
    if isinstance(cause, Mapping) and depth:
        error.__cause__ = _error(cause, depth - 1)
    frames = more.get("frames")
    if isinstance(frames, list):
        error.__traceback__ = _traceback(frames)
    elif isinstance(failure.get("file"), str):
        error.__traceback__ = _traceback([[failure["file"], failure.get("line"), name]])
    return error


def _instance(
    name: str, message: str, failure: Mapping[str, Any], more: Mapping[str, Any]
) -> Exception:
    status = failure.get("status")
    kind = _class(name, more)
    if type(status) is int and 400 <= status <= 599 and not issubclass(kind, VekoError):
        kind = _http_error()
    if issubclass(kind, _http_error()):
        return _http(kind, status, message, more)
    error = kind.__new__(kind, message)
    error.args = (message,)
    if isinstance(error, SyntaxError):  # its text is not its first argument
        error.msg = message
        error.filename, error.lineno = failure.get("file"), failure.get("line")
        error.offset = failure.get("column")
    if isinstance(error, VekoError):
        path, line = more.get("path"), more.get("line")
        VekoError.__init__(
            error,
            message,
            path=path if isinstance(path, str) else None,
            line=line if type(line) is int else None,
            remedy=_text_or_none(failure.get("remedy")),
        )
        if isinstance(error, errors.ManifestError | errors.ConfigError):
            error.faults = tuple(Fault(*map(str, one)) for one in _rows(more.get("faults"), 2))
        for key in ("plugin", "event", "step", "reason"):
            if isinstance(more.get(key), str):
                setattr(error, key, more[key])
        if isinstance(error, errors.LoadError) and not hasattr(error, "step"):
            error.step = "load"
        if type(failure.get("code")) is int:
            error.code = failure["code"]  # type: ignore[attr-defined]
    return error


def _http(kind: type[Any], status: Any, message: str, more: Mapping[str, Any]) -> Exception:
    from ...http import Fault as HTTPFault

    listed = [HTTPFault(*map(str, one)) for one in _rows(more.get("errors"), 3)]
    given = more.get("headers")
    headers = {str(k): str(v) for k, v in given.items()} if isinstance(given, Mapping) else {}
    valid = type(status) is int and 400 <= status <= 599
    made = _http_error()(status if valid else 500, message, errors=listed, headers=headers)
    if kind is not type(made):
        made.__class__ = kind
    found: Exception = made
    return found


def _http_error() -> type[Any]:
    from ...http import HTTPError

    return HTTPError


def _class(name: str, more: Mapping[str, Any]) -> type[Exception]:
    """Return the class of an error: a known one, or one that is made below the nearest known."""
    module = str(more.get("module") or "")
    known = _known(name) if module in ("builtins", "") or _is_ours(module) else None
    if known is not None:
        return known
    bases = _texts(more.get("bases"))
    base = next((found for found in map(_known, bases) if found is not None), Exception)
    key = (module, name, base.__name__)
    made = _made.get(key)
    if made is None:
        if len(_made) >= 1000:  # the other side chooses the names
            _made.clear()
        names: dict[str, Any] = {"__module__": module or "remote", "__str__": _own_text}
        if issubclass(base, VekoError):
            del names["__str__"]
        made = _made[key] = type(name, (base,), names)
    return made  # type: ignore[return-value]


def _own_text(error: BaseException) -> str:
    return str(error.args[0]) if error.args else ""


def _known(name: str) -> type[Exception] | None:
    if name in errors.__all__:
        found = getattr(errors, name)
        return found if isinstance(found, type) and issubclass(found, Exception) else None
    if name in ("HTTPError", "SocketClosed"):
        from ... import http

        kind: type[Exception] = getattr(http, name)
        return kind
    return _SAFE.get(name)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("veko", "veko_plugins")


def _traceback(frames: Sequence[Any]) -> TracebackType | None:
    trace: TracebackType | None = None
    for row in reversed(frames[-MOST_FRAMES:]):
        if not isinstance(row, list | tuple) or len(row) != 3:
            continue
        file, line, function = row
        number = line if type(line) is int and 0 < line < 2**31 else 1
        frame = _frame(str(file), number, str(function))
        trace = TracebackType(trace, frame, frame.f_lasti, number)
    return trace


def _frame(file: str, line: int, function: str) -> FrameType:
    code = _code.replace(
        co_filename=file,
        co_firstlineno=line,
        co_name=function.rpartition(".")[2],
        co_qualname=function,
        co_linetable=_one_line,
    )
    found: FrameType = eval(code, {"__name__": "remote", "_frame": sys._getframe})
    return found


_code: Final[CodeType] = compile("_frame()", "remote", "eval")
_units = len(_code.co_code) // 2
_one_line: Final = b"".join(
    bytes((0x80 | 13 << 3 | min(8, _units - at) - 1, 0)) for at in range(0, _units, 8)
)
"""The table of positions (CPython's `Objects/locations.md`): all on the first line, no columns, so
that tracebacks underline nothing."""


def _rows(value: object, width: int) -> list[Sequence[object]]:
    rows = value if isinstance(value, list | tuple) else ()
    return [one for one in rows if isinstance(one, list | tuple) and len(one) == width]


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else []


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None

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
import sys
from collections.abc import Awaitable, Mapping, Sequence
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, TypeVar, cast

from veko import VekoError, errors
from veko.errors import Fault, counts

from ..protocol import RemoteError
from .failures import DEPTH, MOST_FRAMES, ORIGIN, said

__all__ = ["across", "error_of", "state_of"]

_T = TypeVar("_T")
_SAFE: Final[dict[str, type[Exception]]] = {}
"""Python's own classes that one text makes an instance of."""
_made: dict[tuple[str, str, str], type[Exception]] = {}


for _name, _kind in vars(builtins).items():
    if isinstance(_kind, type) and issubclass(_kind, Exception):
        try:
            _kind("text")
        except TypeError:  # UnicodeDecodeError and the like
            continue
        _SAFE[_name] = _kind


async def across(call: Awaitable[_T]) -> _T:
    """Await a call to the other side; what that raised is raised as the class that it was."""
    try:
        return await call
    except RemoteError as error:
        raise error_of(said(error)) from None


def state_of(error: BaseException) -> Mapping[str, Any]:
    """Return the state of a request as the worker has left it when this error was raised."""
    origin = getattr(error, ORIGIN, None)
    more = origin.get("more") if isinstance(origin, Mapping) else None
    state = more.get("state") if isinstance(more, Mapping) else None
    return state if isinstance(state, Mapping) else {}


def error_of(failure: Mapping[str, Any]) -> Exception:
    """Return an error to raise for one that crossed the border.

    Args:
        failure: What the other side said of it; `more` may be missing, as it is in what other
            runtimes send.
    """
    error = _error(failure, DEPTH)
    setattr(error, ORIGIN, dict(failure))
    return error


def _error(failure: Mapping[str, Any], depth: int) -> Exception:
    found = failure.get("more")
    more: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    name, message = str(failure.get("type") or "Error"), str(failure.get("message") or "")
    if not name.isidentifier() or len(name) > _LONGEST_NAME:
        name = "Error"
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
    make: Any = kind.__new__
    error: Exception = make(kind, message)
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
        made = _made[key] = cast("type[Exception]", type(name, (base,), names))
    return made


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


_LONGEST_NAME: Final = 200


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

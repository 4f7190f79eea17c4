"""Commands of workers: functions of the host whose signature is that of the command."""

from __future__ import annotations

import datetime
import decimal
import inspect
import keyword
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from .protocol import Violation

if TYPE_CHECKING:
    from .life import Life
    from .protocol import RemoteFunction

__all__ = ["command_of"]

_TYPES: Final[dict[str, type]] = {
    "str": str, "int": int, "float": float, "bool": bool, "Path": Path,
    "datetime": datetime.datetime, "date": datetime.date, "time": datetime.time,
    "timedelta": datetime.timedelta, "Decimal": decimal.Decimal, "UUID": uuid.UUID,
}  # fmt: skip


def command_of(life: Life, fn: RemoteFunction, parameters: object) -> Callable[..., Any]:
    """Return the function of a command that a worker has registered.

    Args:
        life: The worker's generation.
        fn: The worker's function: `(positional, named)`.
        parameters: What the worker says of each parameter.

    Raises:
        Violation: That is malformed.
    """
    signature, notes = _signature(parameters, script=not life.is_python)

    async def command(*args: Any, **named: Any) -> Any:
        # `from` is a name in JavaScript; here it is `from_`.
        given = {
            name[:-1] if keyword.iskeyword(name[:-1]) else name: _sendable(value)
            for name, value in named.items()
        }
        try:
            return await life.call(fn, [_sendable(one) for one in args], given)
        except Exception as error:
            if type(error).__name__ == "SystemExit":  # the class that stands for the worker's
                raise SystemExit(_exit_code(str(error))) from error
            raise
        finally:
            life.worker.catch_up()  # what it printed comes before its end

    command.__name__ = command.__qualname__ = fn.name or "command"
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__doc__ = "\n".join(["Args:", *notes]) if notes else None
    return command


def _exit_code(text: str) -> int | str:
    try:
        return int(text or 0)
    except ValueError:
        return text


def _sendable(value: Any) -> Any:
    if isinstance(value, Path | decimal.Decimal | uuid.UUID | datetime.time):
        return str(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, tuple | list):
        return [_sendable(one) for one in value]
    return value


def _signature(parameters: object, *, script: bool) -> tuple[inspect.Signature, list[str]]:
    if not isinstance(parameters, list):
        raise Violation("described a command with something else than a list of parameters")
    made: list[inspect.Parameter] = []
    notes: list[str] = []
    for one in parameters:
        if not isinstance(one, Mapping) or not str(one.get("name", "")).isidentifier():
            raise Violation("described a parameter of a command that has no name")
        name, many = str(one["name"]), one.get("many") is True
        if keyword.iskeyword(name):
            name += "_"
        annotation = _annotation(one.get("type"))
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        default = inspect.Parameter.empty if one.get("required") else one.get("default")
        if many and script:
            made.append(
                inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL, annotation=annotation)
            )
            break
        if many:
            annotation = list[annotation]  # type: ignore[valid-type]
        if default is None:
            annotation = annotation | None
        made.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
        if isinstance(help_ := one.get("help"), str) and help_:
            notes.append(f"    {name}: {' '.join(help_.split())}")
    optional = False
    for index, parameter in enumerate(made):
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        if optional and parameter.default is inspect.Parameter.empty:
            only = inspect.Parameter.KEYWORD_ONLY
            made[index:] = [one.replace(kind=only) for one in made[index:]]
            break
        optional = optional or parameter.default is not inspect.Parameter.empty
    try:
        return inspect.Signature(made), notes
    except ValueError as error:
        raise Violation(f"described the parameters of a command wrongly: {error}") from None


def _annotation(kind: object) -> Any:
    if isinstance(kind, Sequence) and not isinstance(kind, str) and kind:
        return Literal[tuple(kind)]
    return _TYPES.get(str(kind), str)

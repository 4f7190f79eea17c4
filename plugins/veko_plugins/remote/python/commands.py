"""Commands that the host calls, and how their command lines are described to it.

The host reads command lines with the description; what its types cannot say arrives as text, and is
converted here to what the function's annotations name.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from ...commands import Command, Usage, UsageError, read_usage
from .calls import Called, Crossing, name_of
from .failures import contained

__all__ = ["command_call"]

_NAMES: Final = frozenset({
    "str", "int", "float", "bool", "Path", "datetime", "date", "time", "timedelta", "Decimal",
    "UUID",
})  # fmt: skip


def command_call(command: Command) -> tuple[Called, list[dict[str, Any]]]:
    """Return the function that the host calls for a command, and its parameters.

    The function takes a list of positional arguments and a mapping of keyword arguments.

    Args:
        command: The command, as it is registered in the worker.
    """
    fn = command.fn
    try:
        usage = read_usage(fn)
    except (UsageError, ValueError):  # no text can give its arguments, or it has no signature
        usage = Usage((), "")
    types = {one.name: one.type for one in usage.arguments}

    async def call(args: Sequence[Any] = (), named: Mapping[str, Any] | None = None) -> Crossing:
        positional = list(args)
        try:
            names = list(inspect.signature(fn).parameters)
        except ValueError:
            names = []
        for index, value in enumerate(positional):
            if index < len(names):
                positional[index] = _converted(value, types.get(names[index]))
        given = {key: _converted(value, types.get(key)) for key, value in (named or {}).items()}
        answer = fn(*positional, **given)
        return await answer if inspect.isawaitable(answer) else answer

    call.__qualname__ = name_of(fn)
    return contained(call), [_described(one) for one in usage.arguments]


def _described(argument: Any) -> dict[str, Any]:
    required: bool = argument.required
    default = None if required else argument.default
    return {
        "name": argument.name,
        "type": _type_name(argument.type),
        "required": required,
        "default": default if isinstance(default, str | int | float | bool) else None,
        "help": argument.help,
        "kind": argument.form,
        "by": argument.kind.name.lower(),
        "many": argument.many is not None,
    }


def _type_name(type_: object) -> object:
    if get_origin(type_) is Literal:
        return [str(one) for one in get_args(type_)]
    if isinstance(type_, type) and issubclass(type_, enum.Enum):
        return [str(one.value) for one in type_]
    name = getattr(type_, "__name__", "str")
    return name if name in _NAMES else "str"


def _converted(value: Any, type_: Any) -> Any:
    if isinstance(value, list):
        return [_converted(one, type_) for one in value]
    if not isinstance(value, str) or type_ in (None, str, object, inspect.Parameter.empty):
        return value
    if type_ is Path:
        return Path(value)
    try:
        return msgspec.convert(value, type_, strict=False)
    except (msgspec.ValidationError, TypeError):
        return value  # called from Python with a text: it gets what was given

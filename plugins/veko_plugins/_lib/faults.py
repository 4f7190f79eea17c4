"""Every fault of a value that does not fit a type: msgspec stops at the first, so this walks on.

The type is walked beside the value, and each part that msgspec refuses is looked into, so each
fault is one that msgspec itself finds, in its words.

Cost: one conversion a field, and only after the whole has failed to convert.
Promise: a secret's value is in no message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import msgspec

from veko.errors import Fault

from .secret_fields import fields_of, stripped
from .versions import did_you_mean

__all__ = ["decode_path", "described", "dotted", "fault_of", "type_faults"]

_SHOWN: Final = 80
"""Characters of a value that a message shows."""
_AT: Final = re.compile(r" - at `(key` in `)?\$(.*)`$")


def type_faults(
    value: object, type_: Any, path: tuple[object, ...] = (), *, secret: bool = False
) -> Iterator[Fault]:
    """Yield every fault of a value that should convert to a type.

    Args:
        value: Plain data, as a file or a program has it.
        type_: Any type that msgspec converts to; `Path` counts as one.
        path: The keys and indexes that lead to the value in a larger one.
        secret: Whether the value must not be shown.
    """
    try:
        msgspec.convert(value, type_, dec_hook=decode_path)
    except msgspec.ValidationError as error:
        inner, marked = stripped(type_, value)
        secret = secret or marked
        deeper = list(_deeper(value, inner, path, secret))
        yield from deeper or [described(path, fault_of(error).message, value, secret=secret)]


def decode_path(type_: type, value: object) -> object:
    """Convert to the types that msgspec does not know: text to `Path`, the rest as it is.

    Raises:
        msgspec.ValidationError: The value is of another type.
    """
    if type_ is Path and isinstance(value, str | Path):
        return Path(value)
    if isinstance(value, type_):
        return value
    raise msgspec.ValidationError(
        f"Expected `{getattr(type_, '__name__', type_)}`, got `{type(value).__name__}`"
    )


def _deeper(value: object, type_: Any, path: tuple[object, ...], secret: bool) -> Iterator[Fault]:
    origin, arguments = get_origin(type_) or type_, get_args(type_)
    if isinstance(value, Mapping):
        if fields := fields_of(origin):
            yield from _field_faults(value, origin, fields, path, secret)
        elif isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
            for key, item in value.items():
                yield from type_faults(item, arguments[1], (*path, key), secret=secret)
    elif isinstance(value, list | tuple) and arguments and _is_sequence(origin):
        several = origin is tuple and arguments[-1] is not Ellipsis
        for number, item in enumerate(value):
            wanted = arguments[number] if several and number < len(arguments) else arguments[0]
            yield from type_faults(item, wanted, (*path, number), secret=secret)


def _is_sequence(origin: object) -> bool:
    return isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet)


def _field_faults(
    value: Mapping[Any, object],
    type_: Any,
    fields: Mapping[str, tuple[Any, bool]],
    path: tuple[object, ...],
    secret: bool,
) -> Iterator[Fault]:
    for name, (field_type, required) in fields.items():
        if name in value:
            yield from type_faults(value[name], field_type, (*path, name), secret=secret)
        elif required:
            yield Fault(dotted((*path, name)), "is missing")
    config = getattr(type_, "__struct_config__", None)
    if config is not None and config.forbid_unknown_fields:
        for key in value.keys() - fields.keys():
            near = did_you_mean(str(key), fields)
            yield Fault(dotted((*path, key)), "is unknown" + (f" ({near})" if near else ""))


def fault_of(error: msgspec.ValidationError) -> Fault:
    """Return what an error of msgspec's says, and the path that msgspec appends to it.

    msgspec has no attributes for the two; no other place reads them out of its text.
    """
    text = str(error)
    found = _AT.search(text)
    message, path = (text, "") if found is None else (text[: found.start()], found[2])
    message = message[:1].lower() + message[1:]
    if found is not None and found[1]:
        message = f"a key: {message}"
    return Fault(path.replace("[...]", "").removeprefix("."), message)


def described(path: Sequence[object], message: str, value: object, *, secret: bool) -> Fault:
    """Return a fault whose message shows the value, if it is short, plain and no secret.

    Args:
        path: The keys and indexes that lead to the value.
        message: What is wrong with it.
        value: The value.
        secret: Whether it must not be shown.
    """
    if not secret and isinstance(value, str | int | float | None):
        shown = repr(value)
        message += f"; it is {shown if len(shown) < _SHOWN else shown[: _SHOWN - 2] + '…'}"
    return Fault(dotted(path), message)


def dotted(path: Sequence[object]) -> str:
    """Write a path as `items[2].count`; the empty path is the empty string."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")

"""Every fault of a value that does not fit a type: msgspec stops at the first, so this walks on.

The type is walked beside the value, and each part that msgspec refuses is looked into, so each
fault is one that msgspec itself finds, in its words. Configurations, manifests and the bodies of
requests use this one walker.

Cost: one conversion a level, and only after the whole has failed to convert. Below `DEPTH` levels
the first fault of a part stands for all of them.
Promise: a secret's value is in no message.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import (
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import inspect

from veko.errors import Fault

from .secret_fields import stripped
from .versions import did_you_mean

__all__ = ["decode_path", "described", "dotted", "fault_of", "type_faults"]

DEPTH: Final = 8
_SHOWN: Final = 80
"""Characters of a value that a message shows."""
_AT: Final = re.compile(r" - at `(key` in `)?\$(.*)`$")

_Path: TypeAlias = tuple[object, ...]
_Convert: TypeAlias = Callable[[object, Any], object]
"""Converts a value to a type, and raises `msgspec.ValidationError` if it does not fit."""


def _convert_plain(value: object, type_: Any) -> object:
    return msgspec.convert(value, type_, dec_hook=decode_path)


def type_faults(
    value: object,
    type_: Any,
    path: _Path = (),
    *,
    secret: bool = False,
    convert: _Convert = _convert_plain,
    depth: int = DEPTH,
) -> Iterator[Fault]:
    """Yield every fault of a value that should convert to a type.

    Args:
        value: Plain data, as a file, a program or a request has it.
        type_: Any type that `convert` converts to.
        path: The keys and indexes that lead to the value in a larger one.
        secret: Whether no message may show the value.
        convert: Converts a part to its type; by default `Path` is one of the types.
        depth: Levels to look into.
    """
    try:
        convert(value, type_)
    except msgspec.ValidationError as error:
        type_, marked = _meant(type_, value)
        secret = secret or marked
        found = False
        for fault in _deeper(value, type_, path, secret, convert, depth - 1) if depth else ():
            found = True
            yield fault
        if not found:
            yield _whole_fault(error, path, value, secret=secret)


def _whole_fault(
    error: msgspec.ValidationError, path: _Path, value: object, *, secret: bool
) -> Fault:
    """Return msgspec's own fault of a value in which no part was found to be wrong."""
    fault = fault_of(error)
    if not fault.path:
        return described(path, fault.message, value, secret=secret)
    joint = "" if not path or fault.path.startswith("[") else "."
    return Fault(f"{dotted(path)}{joint}{fault.path}", fault.message)


def _meant(type_: Any, value: object) -> tuple[Any, bool]:
    """Return the type that a value was meant to be, and whether it is marked as secret.

    It is the only option of a union that the value could be; if there are several, the union.
    """
    type_, secret = stripped(type_, value)
    if get_origin(type_) not in (Union, types.UnionType):
        return type_, secret
    options = [option for option in get_args(type_) if _could_be(value, option)]
    return (stripped(options[0], value)[0] if len(options) == 1 else type_), secret


def _could_be(value: object, type_: Any) -> bool:
    known: Any = inspect.type_info(type_)
    if isinstance(value, Mapping):
        tag = getattr(known, "tag_field", None)
        named = hasattr(known, "fields") or isinstance(known, inspect.DictType)
        return named and (tag is None or value.get(tag) == getattr(known, "tag", None))
    other = hasattr(known, "fields") or isinstance(known, inspect.NoneType | inspect.DictType)
    return isinstance(value, list) and not other


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


def _deeper(
    value: object, type_: Any, path: _Path, secret: bool, convert: _Convert, depth: int
) -> Iterator[Fault]:
    known: Any = inspect.type_info(type_)
    parts: Iterator[tuple[object, object, Any]] = iter(())
    arguments = get_args(type_)
    if isinstance(value, Mapping):
        if hasattr(known, "fields") and not getattr(known, "array_like", False):
            yield from _name_faults(value, known, path)
            parts = _fields(value, known)
        elif isinstance(known, inspect.DictType) and len(arguments) == 2:
            parts = ((key, item, arguments[1]) for key, item in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if isinstance(known, inspect.TupleType):
            pairs = zip(value, arguments, strict=False)
            parts = ((index, item, wanted) for index, (item, wanted) in enumerate(pairs))
        elif arguments and get_origin(type_) is not Literal:
            parts = ((index, item, arguments[0]) for index, item in enumerate(value))
    for step, part, wanted in parts:
        yield from type_faults(
            part, wanted, (*path, step), secret=secret, convert=convert, depth=depth
        )


def _name_faults(value: Mapping[Any, object], known: Any, path: _Path) -> Iterator[Fault]:
    """Yield the names that are missing, and those that are unknown where that is forbidden."""
    names = {field.encode_name: field.required for field in known.fields}
    for name, required in names.items():
        if required and name not in value:
            yield Fault(dotted((*path, name)), "is missing")
    if getattr(known, "forbid_unknown_fields", False):
        for key in value:
            if key not in names and key != known.tag_field:
                near = did_you_mean(str(key), names)
                yield Fault(dotted((*path, key)), "is unknown" + (f" ({near})" if near else ""))


def _fields(value: Mapping[Any, object], known: Any) -> Iterator[tuple[object, object, Any]]:
    """Yield name, value and type of the fields that a value has."""
    try:
        if isinstance(known, inspect.StructType):
            hints = {field.name: field.type for field in msgspec.structs.fields(known.cls)}
        else:
            hints = get_type_hints(known.cls, include_extras=True)
    except (NameError, TypeError, AttributeError):  # a name that only type checkers see
        return
    for field in known.fields:
        hint = hints.get(field.name)
        if field.encode_name in value and not getattr(hint, "__parameters__", None):
            if get_origin(hint) in (Required, NotRequired):
                hint = get_args(hint)[0]
            yield field.encode_name, value[field.encode_name], hint


def fault_of(error: msgspec.DecodeError) -> Fault:
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

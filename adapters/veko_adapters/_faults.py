"""Every fault of a value that is to be of a type: msgspec stops at the first, so this goes on.

The type is walked beside the value, and each part that msgspec refuses is looked into: so every
fault is one of msgspec's own, in its words, and none is invented. It costs a conversion a level,
and only after the whole has failed; past 8 levels, 100 faults or 256 KiB the first one has to do.
"""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import inspect

__all__ = ["LARGEST", "Unfit", "body_faults", "by_pydantic", "dotted", "told"]

LARGEST: Final = 256 * 1024
"""Bytes of a body that is gone through for all of its faults."""
_DEEPEST: Final = 8
_MOST: Final = 100
_AT: Final = re.compile(r" - at `(key` in `)?\$(.*)`$")

_Found = tuple[str, str]
_Check = Callable[[Any, Any], object]
_Part = tuple[Any, Any, str]
"""A part of a value, the type that it must be of, and what its path ends with."""


class Unfit(msgspec.ValidationError):
    """What somebody else than msgspec found.

    Attributes:
        found: Every fault, as what it is and the path to it.
    """

    def __init__(self, found: Sequence[_Found]) -> None:
        super().__init__("the body does not fit")
        self.found = found


def by_pydantic(load: Callable[[Any], Any], value: object) -> Any:
    """Let a pydantic model read a body.

    Raises:
        Unfit: It does not fit.
    """
    try:
        return load(value)
    except ValueError as error:
        errors = getattr(error, "errors", None)
        if errors is None:
            raise
        told = errors(include_url=False, include_context=False, include_input=False)
        raise Unfit([(fault["msg"], dotted(fault["loc"])) for fault in told[:_MOST]]) from None


def told(error: Exception) -> _Found:
    """Take a fault of msgspec's apart: what it is, and the path to it."""
    text = str(error)
    match = _AT.search(text)
    if match is None:
        return text, ""
    detail = f"a key: {text[: match.start()]}" if match[1] else text[: match.start()]
    return detail, match[2].replace("[...]", "")


def dotted(path: Sequence[str | int]) -> str:
    """Write a path as `items[2].count`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def body_faults(value: Any, annotation: Any, *, strict: bool) -> list[_Found]:
    """List what is wrong with a value, each fault as what it is and the path to it.

    Args:
        value: What was decoded without a type.
        annotation: The type that it must be of.
        strict: Whether text that looks like a number is none.
    """

    def check(part: Any, wanted: Any) -> object:
        return msgspec.convert(part, wanted, strict=strict, str_keys=True)

    try:
        return list(itertools.islice(_walk(value, annotation, "", check, _DEEPEST), _MOST))
    except RecursionError:
        return []


def _walk(value: Any, wanted: Any, path: str, check: _Check, depth: int) -> Iterator[_Found]:
    try:
        check(value, wanted)
    except msgspec.ValidationError as error:
        inside = False
        for found in _inside(value, wanted, path, check, depth) if depth else ():
            inside = True
            yield found
        if not inside:
            detail, where = told(error)
            yield detail, (path + where).removeprefix(".")


def _inside(value: Any, wanted: Any, path: str, check: _Check, depth: int) -> Iterator[_Found]:
    known = inspect.type_info(wanted)
    if isinstance(known, inspect.UnionType):
        wanted, known = _option(value, wanted, known)
    parts: Iterator[_Part] = iter(())
    fields = getattr(known, "fields", None)
    if fields is not None and isinstance(value, Mapping) and not getattr(known, "array_like", 0):
        for field in fields:
            if field.required and field.encode_name not in value:
                yield "is missing", f"{path}.{field.encode_name}".removeprefix(".")
        if getattr(known, "forbid_unknown_fields", False):
            tag = getattr(known, "tag_field", None)
            for name in value.keys() - {field.encode_name for field in fields} - {tag}:
                yield "is unknown", f"{path}.{name}".removeprefix(".")
        parts = _fields(value, known, fields)
    elif isinstance(known, inspect.DictType) and isinstance(value, Mapping):
        types = typing.get_args(_plain(wanted))
        if len(types) == 2:
            parts = ((item, types[1], f".{key}") for key, item in value.items())
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        types = typing.get_args(_plain(wanted))
        if isinstance(known, inspect.TupleType):
            parts = (
                (item, type_, f"[{index}]")
                for index, (item, type_) in enumerate(zip(value, types, strict=False))
            )
        elif types:
            parts = ((item, types[0], f"[{index}]") for index, item in enumerate(value))
    for part, type_, step in parts:
        yield from _walk(part, type_, path + step, check, depth - 1)


def _fields(value: Mapping[str, Any], known: Any, fields: Sequence[Any]) -> Iterator[_Part]:
    try:
        hints = typing.get_type_hints(known.cls, include_extras=True)
    except Exception:  # a name that only a type checker sees
        return
    for field in fields:
        hint = hints.get(field.name)
        if field.encode_name in value and not getattr(hint, "__parameters__", None):
            yield value[field.encode_name], _optional(hint), f".{field.encode_name}"


def _optional(hint: Any) -> Any:
    """Return what a field of a `TypedDict` holds if it is there."""
    marked = typing.get_origin(hint) in (typing.Required, typing.NotRequired)
    return typing.get_args(hint)[0] if marked else hint


def _plain(wanted: Any) -> Any:
    return typing.get_args(wanted)[0] if typing.get_origin(wanted) is typing.Annotated else wanted


def _option(value: Any, wanted: Any, known: inspect.UnionType) -> tuple[Any, Any]:
    """Return the part of a union that a value was meant to be, or the union itself."""
    fitting: list[tuple[Any, Any]] = []
    for option in typing.get_args(_plain(wanted)):
        one: Any = inspect.type_info(option)
        tag = getattr(one, "tag_field", None)
        if isinstance(value, Mapping):
            fits = hasattr(one, "fields") or isinstance(one, inspect.DictType)
            fits = fits and (tag is None or value.get(tag) == getattr(one, "tag", None))
        else:
            fits = isinstance(value, list) and not hasattr(one, "fields")
            fits = fits and not isinstance(one, (inspect.NoneType, inspect.DictType))
        if fits:
            fitting.append((option, one))
    return fitting[0] if len(fitting) == 1 else (wanted, known)

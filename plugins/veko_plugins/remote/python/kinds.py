"""Values that two Python processes exchange beyond those of the protocol.

A stored value crosses as the storage writes it, so its types (`Decimal`, `UUID`, tuples, …) come
back. Requests, responses, routes, sockets, plugins and errors become Veko's own classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

import msgspec

from veko import VekoError
from veko.errors import StorageError

from ...storage import Packed, pack, unpack
from ..protocol import Failure, Kinds
from .errors import error_of
from .failures import failure_of

_AS_TEXT: Final = (Decimal, UUID, PurePath, time)

__all__ = ["Marked", "Named", "Stored", "kinds", "stored"]


class Marked:
    """A value that crosses as a mark of the given kind.

    Args:
        kind: The kind.
        value: What belongs to it.
    """

    __slots__ = ("kind", "value")

    def __init__(self, kind: str, value: object) -> None:
        self.kind = kind
        self.value = value


class Named:
    """The keyword arguments of a call, as its last argument.

    Args:
        arguments: The arguments by name.
    """

    __slots__ = ("arguments",)

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments


class Stored:
    """A value of the storage: crosses as the storage encodes it, and arrives as the value.

    Args:
        key: Its key, for errors.
        value: The value, or what the storage made of it.

    Raises:
        StorageError: It cannot be stored.
    """

    __slots__ = ("packed",)

    def __init__(self, key: str, value: object) -> None:
        self.packed = value if type(value) is Packed else pack(key, value)[1]


def stored(entries: Mapping[str, object]) -> dict[str, Stored]:
    """Return entries of the storage as they cross the border."""
    return {key: Stored(key, value) for key, value in entries.items()}


def kinds(
    decode: Mapping[str, Callable[..., Any]] | None = None,
    *,
    source: Callable[[], object] = lambda: None,
    traces: bool = True,
) -> Kinds:
    """Return the kinds of a connection between two Python processes.

    Args:
        decode: What makes values of further kinds.
        source: Returns the file or folder of the plugin, to find the line of an error.
        traces: Whether errors say where in the code they were raised; see `failure_of`.
    """

    def failure(error: BaseException) -> Failure:
        return Failure(**failure_of(error, source(), traces=traces))

    return Kinds(
        encode={
            Marked: lambda marked: (marked.kind, marked.value),
            Named: lambda named: ("named", named.arguments),
            Stored: lambda one: ("stored", bytes(one.packed)),
        },
        decode={
            "stored": _unstored,
            "error": _error,
            "named": _named,
            **(decode or {}),
        },
        failure=failure,
        other=_other,
    )


def _unstored(packed: object) -> object:
    if not isinstance(packed, bytes):
        raise TypeError("a stored value is no bytes")
    try:
        return unpack(Packed(packed))
    except StorageError as error:
        raise ValueError(error.message) from error


def _error(failure: object) -> Exception:
    if not isinstance(failure, dict):
        raise TypeError("an error is no object")
    return error_of(failure)


def _named(arguments: object) -> Named:
    if not isinstance(arguments, dict):
        raise TypeError("keyword arguments are no object")
    return Named(arguments)


def _other(value: object) -> object:
    """Return a value that is no JSON as data: a struct, a dataclass, a model, a member of an enum.

    Raises:
        VekoError: It is no data.
    """
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, _AS_TEXT):
        return str(value)
    raise VekoError(
        f"a value of type {type(value).__qualname__} cannot be sent to another process",
        remedy="Send JSON-able data, bytes, dates, sets, async functions or async iterators.",
    )

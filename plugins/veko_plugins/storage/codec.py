"""Encodes values as MessagePack, so that decoding gives back exactly what was set.

msgspec silently turns some types into others (a set into a list, a UUID into a string), which a
plugin would notice only after the next start. So each value is decoded again when it is set, and
compared: a value that does not come back equal takes the slow path, which tags the types that
MessagePack does not have, or refuses the value and reports where in it the fault is.

Cost: about 0.1 us for a scalar, 0.5 us for a small mapping; a value that contains tuples, sets,
dates or NaN is walked in Python (about 0.5 us an element).

Promise: the decoded value equals the one that was set (NaN stays NaN); an aware datetime becomes
the same instant in UTC, a `bytearray` becomes `bytes`, and an `IntEnum`, `StrEnum` or named tuple
becomes the plain value that it equals.
"""

from __future__ import annotations

import datetime as dt
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Final

import msgspec

from veko.errors import StorageError

from .._lib.entry_keys import MAX_KEY, check_entry_key

__all__ = ["MAX_KEY", "Expiring", "Packed", "check_key", "expiry_of", "pack", "unpack"]

# Bytes. SQLite allows 10**9, but values are written on the event loop and kept in memory.
MAX_VALUE: Final = 64 << 20

_SCALARS: Final = frozenset({str, int, float, bool, type(None), bytes})
_REMEDY: Final = (
    "Store plain data (str, int, float, bool, None, bytes, list, tuple, set, dict, dates, "
    "Decimal, UUID), or share living objects with context.provide(name, value)"
)


class Packed(bytes):
    """An encoded value; a type of its own, because plain `bytes` are a value themselves."""

    __slots__ = ()


class Expiring(msgspec.Struct, frozen=True):
    """A value that is stored until a moment.

    Attributes:
        until: Seconds since the epoch.
        value: The value.
    """

    until: float
    value: object


class _Unstorable(Exception):
    """Part of a value cannot be encoded."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(what, where)
        self.what = what
        self.where = where


# The moment comes first and has a fixed size, so that it is read without decoding the value.
_UNTIL: Final = struct.Struct(">d")
_EXPIRING: Final = 12
# The position of an extension's type, by its first byte; a moment and a value have 9 bytes or more.
_TYPE_AT: Final = {0xC7: 2, 0xC8: 3, 0xC9: 5, 0xD8: 1}


def _restore(code: int, data: memoryview) -> object:
    if code == _EXPIRING:
        return Expiring(_UNTIL.unpack_from(data)[0], _decode(data[_UNTIL.size :]))
    rebuild = _DECODERS.get(code)
    if rebuild is None:
        raise ValueError(f"unknown extension type {code}: written by a newer version?")
    return rebuild(_decode(data))


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final[Callable[[bytes | memoryview], object]] = msgspec.msgpack.Decoder(
    ext_hook=_restore
).decode

# Numbers are part of the file format: never reuse one. 12 is `_EXPIRING`.
_DECODERS: Final[dict[int, Callable[..., object]]] = {
    1: tuple,
    2: set,
    3: frozenset,
    4: dt.datetime.fromisoformat,
    5: dt.date.fromisoformat,
    6: dt.time.fromisoformat,
    7: lambda parts: dt.timedelta(*parts),
    8: Decimal,
    9: lambda raw: uuid.UUID(bytes=raw),
    10: lambda text: int(text, 16),
    11: dict,  # from pairs, if it has keys of types that MessagePack does not have
}


def check_key(key: object) -> None:
    """Check a storage key.

    Raises:
        StorageError: It is not a `str`, is empty, too long, or has lone surrogates.
    """
    if not (type(key) is str and 0 < len(key) <= MAX_KEY and key.isascii()):
        check_entry_key(key, "storage key", StorageError)


def expiry_of(data: bytes) -> float | None:
    """Return the moment, in seconds since the epoch, until which an encoded value is stored."""
    at = _TYPE_AT.get(data[0]) if data else None
    if at is None or len(data) <= at + _UNTIL.size or data[at] != _EXPIRING:
        return None
    until: float = _UNTIL.unpack_from(data, at + 1)[0]
    return until


def pack(key: str, value: object, until: float | None = None) -> tuple[object, bytes]:
    """Encode the value of an entry.

    Args:
        key: The key of the entry, for errors.
        value: The value.
        until: The moment, in seconds since the epoch, until which it is stored; `None` for no end.

    Returns:
        What to keep in memory (the value itself if it is an immutable scalar, else its `Packed`
        form, so that the storage shares no mutable object with a plugin) and what to write to
        disk.

    Raises:
        StorageError: It cannot be stored; the message has the key, the type and the position in
            the value.
    """
    data: bytes | None = None
    try:
        plain = _encode(value)
        if type(value) in _SCALARS or _decode(plain) == value:
            data = plain
    except Exception:
        pass  # the slow path finds and reports the reason
    if data is None:
        data = _encode_tagged(key, value)
    if until is not None:
        data = _encode(msgspec.msgpack.Ext(_EXPIRING, _UNTIL.pack(until) + data))
    if len(data) > MAX_VALUE:
        raise StorageError(
            f"cannot store {key!r}: its {len(data)} bytes are more than {MAX_VALUE}",
            remedy="Write it to a file and store the file's name",
        )
    return (value if type(value) in _SCALARS and until is None else Packed(data)), data


def _encode_tagged(key: str, value: object) -> bytes:
    try:
        data = _encode(_tag(value, ""))
        _decode(data)
    except _Unstorable as fault:
        where = f", at [{fault.where[1:]}" if fault.where else ""
        raise StorageError(f"cannot store {key!r}{where}: {fault.what}", remedy=_REMEDY) from None
    except (RecursionError, OverflowError, ValueError, TypeError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise StorageError(
            f"cannot store {key!r}, a {type(value).__name__}: {what}", remedy=_REMEDY
        ) from None
    return data


def unpack(stored: object) -> object:
    """Return the value of what `pack` returned for memory; a new object each time if mutable.

    Raises:
        StorageError: It was read from disk and is damaged, or a newer version wrote it.
    """
    if type(stored) is not Packed:
        return stored
    try:
        return _decode(stored)
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise StorageError(
            f"an entry cannot be read: {error}",
            remedy="Its value on disk is damaged: set it again, or restore a backup",
        ) from error


def _tag(value: object, where: str) -> object:
    """Return the value with a tagged extension for each type that MessagePack does not have."""
    match value:
        case None | bool() | float() | bytes():
            return value
        case str():
            value.encode()
            return str(value)
        case int():
            if -(2**63) <= value < 2**64:
                return int(value)
            return _ext(10, format(value, "x"))
        case list():
            return [_tag(item, f"{where}[{index}]") for index, item in enumerate(value)]
        case dict():
            paths = [f"{where}[{key!r:.40}]" for key in value]
            keys = [_tag(key, path) for key, path in zip(value, paths, strict=True)]
            items = [_tag(item, path) for item, path in zip(value.values(), paths, strict=True)]
            if any(isinstance(key, msgspec.msgpack.Ext) for key in keys):
                return _ext(11, list(zip(keys, items, strict=True)))
            return dict(zip(keys, items, strict=True))
        case tuple():
            return _ext(1, [_tag(item, f"{where}[{index}]") for index, item in enumerate(value)])
        case set() | frozenset():
            code = 2 if isinstance(value, set) else 3
            return _ext(code, [_tag(item, f"{where}{{...}}") for item in value])
        case dt.datetime():
            return value if value.tzinfo is not None else _ext(4, value.isoformat())
        case dt.date():
            return _ext(5, value.isoformat())
        case dt.time():
            return _ext(6, value.isoformat())
        case dt.timedelta():
            return _ext(7, [value.days, value.seconds, value.microseconds])
        case Decimal():
            return _ext(8, str(value))
        case uuid.UUID():
            return _ext(9, value.bytes)
        case bytearray() | memoryview():
            return bytes(value)
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    raise _Unstorable(f"a value of type {name} cannot be stored", where)


def _ext(code: int, content: object) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, _encode(content))

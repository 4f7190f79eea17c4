"""Entries: how keys and values are written to a store.

A value is MessagePack, so nothing that a store returns can run code; it is decoded with the type
that the reader names. Around it stand when it expires and the versions that it depends on: one for
all plugins, one for its namespace, one for each of its tags. A version is a random word in the
store; deleting it makes every entry that depends on it invalid, whichever process wrote it. An
entry whose version is missing is invalid too, so a store may drop whatever it likes at any time.

Cost: about 1 us to encode or decode an entry, beside its value.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Any, Final, cast

import msgspec

from .._lib.entry_keys import check_entry_key
from .errors import CacheError, TooLarge

__all__ = [
    "Draft", "Entry", "check_key", "check_tags", "check_ttl", "decode_entry", "decode_value",
    "encode_entry", "encode_value", "new_version", "path_tag",
]  # fmt: skip

MAX_TAGS: Final = 64
_PATH: Final = 400
_YEARS: Final = 366 * 86_400.0


class Draft(msgspec.Struct):
    """A value that is about to be stored; handlers of `cache:set` may change it.

    Attributes:
        value: The value.
        ttl: Seconds until it expires.
        tags: Its tags.
    """

    value: object
    ttl: float
    tags: tuple[str, ...] = ()


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """What is in the store under a key.

    Attributes:
        until: When it expires, in seconds since the epoch.
        versions: The versions that it depends on, by their names in the store.
        value: The encoded value.
    """

    until: float
    versions: dict[str, bytes]
    value: msgspec.Raw


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_entry: Final = msgspec.msgpack.Decoder(Entry).decode
_decoders: Final[dict[Any, Any]] = {}
"""Decoders by type, for the few types that a program names."""
_MOST_DECODERS: Final = 1_000


def new_version() -> bytes:
    """Return a version that no other process makes: 16 letters."""
    return secrets.token_hex(8).encode()


def check_key(key: object) -> str:
    """Return a key.

    Raises:
        CacheError: It is not a `str`, is empty, too long, or has lone surrogates.
    """
    check_entry_key(key, "cache key", CacheError)
    return cast("str", key)


def check_tags(tags: Collection[str]) -> tuple[str, ...]:
    """Return tags, without repetitions.

    Raises:
        CacheError: There are too many, or one is not valid.
    """
    if isinstance(tags, str):
        raise CacheError(f"tags must be a list, not the text {tags!r:.80}", remedy="Use [tag].")
    found = tuple(dict.fromkeys(tags))
    if len(found) > MAX_TAGS:
        raise CacheError(
            f"a value has up to {MAX_TAGS} tags, this one has {len(found)}",
            remedy="Use fewer, broader tags.",
        )
    for tag in found:
        check_entry_key(tag, "tag", CacheError)
    return found


def path_tag(path: str) -> str:
    """Return the tag of a path: responses have those of their own path and of all above it."""
    return "/" + path.encode("ascii", "backslashreplace").decode()[:_PATH]


def check_ttl(ttl: object) -> float:
    """Return a lifetime in seconds.

    Raises:
        CacheError: It is not a number above 0, or is above a year.
    """
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= _YEARS:
        raise CacheError(
            f"ttl must be above 0 and at most {_YEARS:.0f} seconds, got {ttl!r:.40}",
            remedy="Give the seconds until the value expires.",
        )
    return float(ttl)


def encode_value(key: str, value: object, limit: int) -> bytes:
    """Encode a value.

    Args:
        key: Its key, for messages.
        value: The value.
        limit: The bytes that it may have.

    Raises:
        CacheError: It cannot be encoded.
        TooLarge: It is too large.
    """
    try:
        data = _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CacheError(
            f"the value of {key!r} cannot be cached: {error}",
            remedy="Cache plain data, msgspec structs or dataclasses.",
        ) from error
    if len(data) > limit:
        raise TooLarge(
            f"the value of {key!r} has {len(data)} bytes, and {limit} are allowed",
            remedy="Cache less of it, or raise max_value in [plugins.cache].",
        )
    return data


def decode_value(data: bytes | msgspec.Raw, wanted: Any) -> Any:
    """Decode a value.

    Raises:
        msgspec.ValidationError: It is not of that type.
    """
    decoder = _decoders.get(wanted)
    if decoder is None:
        decoder = msgspec.msgpack.Decoder(wanted)
        if len(_decoders) < _MOST_DECODERS:
            _decoders[wanted] = decoder
    return decoder.decode(data)


def encode_entry(until: float, versions: dict[str, bytes], value: bytes) -> bytes:
    """Encode an entry."""
    return _encode(Entry(until, versions, msgspec.Raw(value)))


def decode_entry(data: bytes | None) -> Entry | None:
    """Decode an entry; `None` if there is none, or something else has been written there."""
    if data is None:
        return None
    try:
        return _decode_entry(data)
    except msgspec.DecodeError:
        return None

"""What the adapters to storage servers have in common: their URLs, and how changes are written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from veko.errors import OptionError
from veko_plugins.storage import Changes, Record

__all__ = ["LOGGED", "OneChange", "location_of", "packed", "records", "split_prefix"]

LOGGED: Final = 10_000
"""Changes that are kept for processes that follow; one that is further behind loads all entries."""
_LARGEST: Final = 256 << 10
"""Bytes of a transaction that is kept whole; after a larger one, all entries are loaded again."""
_PREFIX: Final = re.compile(r"[a-z][a-z0-9_]{0,30}")

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[tuple[str, bool, dict[str, bytes | None]]]).decode


class OneChange(msgspec.Struct, frozen=True):
    """A change to one entry; see `Changes`."""

    namespace: str
    entries: dict[str, bytes | None]
    cleared: bool = False
    whole: bool = False


def location_of(url: str) -> str:
    """Return a URL without user, password and parameters."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def split_prefix(url: str) -> tuple[str, str]:
    """Split the parameter `prefix`, which all names on the server begin with, from a URL.

    Returns:
        The URL without it, and the prefix; by default `veko`.

    Raises:
        OptionError: It is not a name.
    """
    parts = urlsplit(url)
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    prefix = dict(parameters).get("prefix", "veko")
    if not _PREFIX.fullmatch(prefix):
        raise OptionError(
            f"storage {location_of(url)}: prefix={prefix!r} is not a name",
            remedy="Use up to 31 lower-case letters, digits and _, beginning with a letter",
        )
    rest = urlencode([one for one in parameters if one[0] != "prefix"])
    return urlunsplit(parts._replace(query=rest)), prefix


def packed(changes: Sequence[Changes]) -> bytes:
    """Return a transaction as bytes for those that follow; empty if it is too large."""
    data = _encode([(one.namespace, one.cleared, one.entries) for one in changes])
    return data if len(data) <= _LARGEST else b""


def records(revision: int, data: bytes) -> Iterator[Record]:
    """Return the changes of a packed transaction."""
    for namespace, cleared, entries in _decode(data):
        yield Record(revision, namespace, entries, cleared)

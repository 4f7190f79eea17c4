"""What the adapters to storage servers have in common: their URLs, and how changes are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from veko_plugins.storage import Changes, Record

__all__ = ["LOGGED", "OneChange", "packed", "records"]

LOGGED: Final = 10_000
"""Changes that are kept for processes that follow; one that is further behind loads all entries."""
_LARGEST: Final = 256 << 10
"""Bytes of a transaction that is kept whole; after a larger one, all entries are loaded again."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[tuple[str, bool, dict[str, bytes | None]]]).decode


class OneChange(msgspec.Struct, frozen=True):
    """A change to one entry; see `Changes`."""

    namespace: str
    entries: dict[str, bytes | None]
    cleared: bool = False
    whole: bool = False


def packed(changes: Sequence[Changes]) -> bytes:
    """Return a transaction as bytes for those that follow; empty if it is too large."""
    data = _encode([(one.namespace, one.cleared, one.entries) for one in changes])
    return data if len(data) <= _LARGEST else b""


def records(revision: int, data: bytes) -> Iterator[Record]:
    """Return the changes of a packed transaction."""
    for namespace, cleared, entries in _decode(data):
        yield Record(revision, namespace, entries, cleared)

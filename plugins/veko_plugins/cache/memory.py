"""The store in memory: bounded, the entries that were not used for longest leave first.

The bound is in bytes, because entries differ in size by a factor of a million; each is charged
what it costs beside its key and value, so that a million tiny ones are bounded as well. Litestar's
`MemoryStore` has no bound at all: an expired entry stays in it until somebody asks for it.

Cost: a dict lookup and two pointers for each key that is read.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

__all__ = ["MemoryStore"]

_BESIDE: Final = 300
"""Bytes of an entry beside its key and value: two objects, a tuple, a place in the dict."""


class MemoryStore:
    """Entries in this process.

    Args:
        max_bytes: How much memory they may take.
        clock: Returns seconds that never go back.

    Attributes:
        size: How much they take now.
    """

    location = "memory"
    shared = False

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = max_bytes
        self._clock = clock
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def open(self) -> None:
        """Do nothing: it is there."""

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys."""
        entries, found = self._entries, list[bytes | None]()
        for key in keys:
            entry = entries.get(key)
            if entry is not None and entry[1] <= self._clock():
                self._drop(key)
                entry = None
            if entry is None:
                found.append(None)
            else:
                entries.move_to_end(key)
                found.append(entry[0])
        return found

    async def set(self, key: str, value: bytes, ttl: float | None) -> bool:
        """Set a value; others leave if there is no room."""
        self._drop(key)
        until = float("inf") if ttl is None else self._clock() + ttl
        self._entries[key] = value, until
        self.size += _BESIDE + len(key) + len(value)
        while self.size > self._limit and self._entries:
            self._drop(next(iter(self._entries)))
        return True

    async def add_many(self, values: Mapping[str, bytes], ttl: float | None) -> list[bytes]:
        """Set each value where there is none; return those that are there then."""
        found = await self.get_many([*values])
        for (key, value), there in zip(values.items(), found, strict=True):
            if there is None:
                await self.set(key, value, ttl)
        return [there or value for value, there in zip(values.values(), found, strict=True)]

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Delete keys."""
        for key in keys:
            self._drop(key)

    async def claim(self, key: str, token: str, seconds: float) -> bool:
        """Let the caller compute: `Flights` has seen to it that nobody else here does."""
        del key, token, seconds
        return True

    async def release(self, key: str, token: str) -> None:
        """Do nothing: there are no claims."""

    async def ping(self) -> None:
        """Do nothing: it is there."""

    async def sweep(self) -> None:
        """Do nothing: there is a bound."""

    async def close(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.size = 0

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= _BESIDE + len(key) + len(entry[0])

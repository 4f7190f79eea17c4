"""Changes to a namespace, for those that watch it: `async for change in storage.watch("user:")`.

Each watch keeps the latest change of each key that its reader has not taken yet, so it is bounded
by the number of keys: a slow reader misses values that were replaced meanwhile, never the last one.

Cost: one look-up for each committed write while nobody watches its namespace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Self
from weakref import WeakSet

import msgspec

from .codec import Expiring, Packed, unpack

__all__ = ["Change", "Watch", "Watches"]


class Change(msgspec.Struct, frozen=True):
    """An entry was set or deleted.

    Attributes:
        key: Its key.
        value: Its value; `None` if it was deleted.
        deleted: Whether there is no such entry any more: it was deleted, or has expired.
    """

    key: str
    value: object
    deleted: bool


class Watch:
    """The changes to the keys that begin with a prefix, in the order in which they were committed.

    Iterating ends when the storage closes, or after `close()`. A watch is for one reader.
    """

    def __init__(self, watches: Watches, namespace: str, prefix: str) -> None:
        self._watches = watches
        self._namespace = namespace
        self._prefix = prefix
        self._changed: dict[str, bytes | None] = {}
        self._wake = asyncio.Event()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while not self._changed:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        key = next(iter(self._changed))
        stored = self._changed.pop(key)
        if stored is None:
            return Change(key, None, True)
        value = unpack(Packed(stored))
        return Change(key, value.value if isinstance(value, Expiring) else value, False)

    def close(self) -> None:
        """End the iteration, after the changes so far; a second call does nothing."""
        self._closed = True
        self._wake.set()
        self._watches.remove(self._namespace, self)

    def add(self, key: str, stored: bytes | None) -> None:
        """Add a change; a later one of the same key replaces it."""
        if key.startswith(self._prefix):
            self._changed.pop(key, None)
            self._changed[key] = stored
            self._wake.set()


class Watches:
    """All watches of an engine. A watch that nobody holds any more goes by itself."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, WeakSet[Watch]] = {}

    def open(self, namespace: str, prefix: str) -> Watch:
        """Return a new watch."""
        watch = Watch(self, namespace, prefix)
        self._by_namespace.setdefault(namespace, WeakSet()).add(watch)
        return watch

    def remove(self, namespace: str, watch: Watch) -> None:
        """Forget a watch."""
        watches = self._by_namespace.get(namespace)
        if watches is not None:
            watches.discard(watch)
            if not watches:
                del self._by_namespace[namespace]

    def __contains__(self, namespace: str) -> bool:
        return bool(self._by_namespace.get(namespace))

    def publish(self, namespace: str, changed: Mapping[str, bytes | None]) -> None:
        """Give committed changes to those that watch the namespace."""
        for watch in self._by_namespace.get(namespace, ()):
            for key, stored in changed.items():
                watch.add(key, stored)

    def close(self) -> None:
        """End all watches."""
        for watches in [*self._by_namespace.values()]:
            for watch in [*watches]:
                watch.close()

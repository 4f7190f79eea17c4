"""Any of Litestar's stores as a store of the cache.

Litestar's stores have one key an operation, lifetimes of whole seconds, and no claims. An entry
says itself when it expires, so here the store's lifetime is rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litestar.stores.base import Store

__all__ = ["LitestarStore", "seconds"]


def seconds(ttl: float | None) -> int | None:
    """Return a lifetime in whole seconds, rounded up."""
    return None if ttl is None else max(1, math.ceil(ttl))


class LitestarStore:
    """One of Litestar's stores.

    Args:
        store: The store.
        location: What it is called in messages.
        shared: Whether several processes use it.
    """

    def __init__(self, store: Store, *, location: str = "", shared: bool = True) -> None:
        self.location = location or type(store).__name__
        self.shared = shared
        self._store = store

    async def open(self) -> None:
        """Open it."""
        await self._store.__aenter__()

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys, one after the other."""
        return [await self._store.get(key) for key in keys]

    async def set(self, key: str, value: bytes, ttl: float | None) -> bool:
        """Set a value."""
        await self._store.set(key, value, expires_in=seconds(ttl))
        return True

    async def add_many(self, values: Mapping[str, bytes], ttl: float | None) -> list[bytes]:
        """Set each value where there is none; return those that are there then.

        Two processes may set one at once: the entries of one of them are invalid then.
        """
        found = await self.get_many([*values])
        for (key, value), there in zip(values.items(), found, strict=True):
            if there is None:
                await self.set(key, value, ttl)
        return [there or value for value, there in zip(values.values(), found, strict=True)]

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Delete keys, one after the other."""
        for key in keys:
            await self._store.delete(key)

    async def claim(self, key: str, token: str, seconds: float) -> bool:
        """Let the caller compute: such a store cannot say that another process does."""
        del key, token, seconds
        return True

    async def release(self, key: str, token: str) -> None:
        """Do nothing: there are no claims."""

    async def ping(self) -> None:
        """Ask for a key."""
        await self._store.get("ping")

    async def sweep(self) -> None:
        """Remove what has expired, if the store can."""
        delete_expired = getattr(self._store, "delete_expired", None)
        if delete_expired is not None:
            await delete_expired()

    async def close(self) -> None:
        """Close it."""
        await self._store.__aexit__(None, None, None)

"""The engine: what all namespaces of the cache share.

A look-up asks the hooks on `cache:get`, then the store: for the entry and, in the same round trip,
for the versions that it should depend on. An entry that depends on others costs a second one.

Cost: in memory about 4 us for a hit (`benchmarks/cache.py`). Without hooks, an event costs a dict
lookup.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from .entries import (
    Draft,
    check_tags,
    check_ttl,
    decode_entry,
    decode_value,
    encode_entry,
    encode_value,
    new_version,
    path_tag,
)
from .errors import CacheError, TooLarge
from .events import CACHE_CLEAR, CACHE_DELETE, CACHE_GET, CACHE_SET
from .exchange import RawHeaders, Received, ResponseLike
from .flights import Flights
from .guarded import GuardedStore
from .memory import MemoryStore
from .stats import Counts

if TYPE_CHECKING:
    from veko import Bus

__all__ = ["Engine", "Found", "Scope", "Uncached"]

_VERSION_TTL: Final = 86_400.0
"""Seconds for which the version of a tag is kept; without it, its entries are invalid."""
_POLL: Final = 0.02
_POLL_MOST: Final = 0.25


class Scope(msgspec.Struct, frozen=True):
    """A namespace, as the engine sees it.

    Attributes:
        name: Its name; empty for the application's own.
        counts: What is counted for it.
    """

    name: str
    counts: Counts

    def key(self, key: str) -> str:
        """Return a key as hooks see it."""
        return f"{self.name}:{key}"

    def versions(self, names: Sequence[str] = ()) -> list[str]:
        """Return the versions that an entry of this namespace depends on."""
        own = ["v:", f"v:{self.name}"] if self.name else ["v:"]
        return own + [f"t:{self.name}:{name}" for name in names]


class Found(msgspec.Struct):
    """The result of a look-up.

    Attributes:
        data: The encoded value; `None` if there is no valid one.
        value: The value.
        until: When it expires, in seconds since the epoch.
        versions: The versions that were read; `None` for those that do not exist.
    """

    data: bytes | msgspec.Raw | None
    value: Any = None
    until: float = 0.0
    versions: dict[str, bytes | None] = {}


class Engine:
    """The engine.

    Args:
        store: The store.
        bus: Where hooks are.
        ttl: Seconds that a value lives if nothing else is said.
        max_value: Bytes that an encoded value may have.
        patience: Seconds that a caller waits for another's computation at most.
        response: Returns what makes responses.
        warn: Logs a warning.
        clock: Returns seconds since the epoch.
    """

    def __init__(
        self,
        store: MemoryStore | GuardedStore,
        bus: Bus,
        *,
        ttl: float,
        max_value: int,
        patience: float,
        response: Callable[[], Received],
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.ttl = ttl
        self.max_value = max_value
        self.clock = clock
        self.flights: Flights[Any] = Flights(patience)
        self._bus = bus
        self._patience = patience
        self._response = response
        self._make: Received | None = None
        self._warn = warn
        self._warned = -60.0

    def received(self, status: int, raw: RawHeaders, body: bytes) -> ResponseLike:
        """Make a response, of the class that the service `http` has."""
        if self._make is None:
            self._make = self._response()
        return self._make(status, raw, body)

    # -- reading

    async def look(
        self, scope: Scope, key: str, names: Sequence[str], wanted: Any, *, ask: bool = True
    ) -> Found:
        """Look a value up.

        Args:
            scope: Its namespace.
            key: Its key.
            names: The tags that it should have; others cost a round trip more.
            wanted: The type that it should be of; another one counts as missing.
            ask: Whether to ask the hooks.
        """
        full = scope.key(key)
        if ask and self._bus.heard(CACHE_GET.name):
            answer = await self._bus.first(CACHE_GET.name, full)
            # A hook on everything that returns what it gets does not answer.
            if answer is not None and answer is not full:
                data = encode_value(full, answer, self.max_value)
                with contextlib.suppress(msgspec.ValidationError):  # not for whom asks
                    return Found(data, decode_value(data, wanted), self.clock() + self.ttl)
        versions = scope.versions(names)
        raw, *current = await self.store.get_many([f"e:{full}", *versions])
        known = dict(zip(versions, current, strict=True))
        entry = decode_entry(raw)
        if entry is None or entry.until <= self.clock():
            return Found(None, versions=known)
        if more := [name for name in entry.versions if name not in known]:
            known |= await self.versions(more)
        if any(known[name] != version for name, version in entry.versions.items()):
            return Found(None, versions=known)
        try:
            value = decode_value(entry.value, wanted)
        except msgspec.ValidationError:
            return Found(None, versions=known)
        return Found(entry.value, value, entry.until, known)

    async def versions(self, names: Sequence[str]) -> dict[str, bytes | None]:
        """Return versions as they are in the store."""
        found = await self.store.get_many(names) if names else []
        return dict(zip(names, found, strict=True))

    # -- writing

    async def prepare(
        self, scope: Scope, names: Sequence[str], known: Mapping[str, bytes | None]
    ) -> dict[str, bytes]:
        """Return the versions for an entry; those that do not exist are written.

        Before a value is computed: what is deleted while it is computed then makes it invalid.

        Args:
            scope: Its namespace.
            names: Its tags.
            known: Versions that were just read.
        """
        wanted = scope.versions(names)
        made = {name: version for name in wanted if (version := known.get(name)) is not None}
        if missing := {name: new_version() for name in wanted if name not in made}:
            # Those of namespaces are few, and stay.
            stay = {name: value for name, value in missing.items() if name.startswith("v:")}
            others = {name: value for name, value in missing.items() if name not in stay}
            for values, ttl in ((stay, None), (others, _VERSION_TTL)):
                if values:
                    found = await self.store.add_many(values, ttl)
                    made |= zip(values, found, strict=True)
        return made

    async def write(
        self, scope: Scope, key: str, draft: Draft, data: bytes, known: dict[str, bytes]
    ) -> bytes | None:
        """Store a value, unless a hook refuses it.

        Args:
            scope: Its namespace.
            key: Its key.
            draft: The value, and what hooks may change.
            data: The value, encoded.
            known: The versions that it depends on, as `prepare` returned them.

        Returns:
            The encoded value, or `None` if it is not stored.

        Raises:
            CacheError: It cannot be encoded or is too large; or a hook changed it to something
                that is not valid.
        """
        full = scope.key(key)
        if self._bus.heard(CACHE_SET.name):
            tags = draft.tags
            try:
                passed = await self._bus.emit(CACHE_SET.name, full, draft.value, draft.ttl, draft)
            except Exception:  # the bus has reported it: a hook failed, and the event fails closed
                return None
            if passed is None:
                return None
            draft.ttl = check_ttl(draft.ttl)
            if draft.tags != tags:
                tags = check_tags(draft.tags)
                known = known | await self.prepare(
                    scope, tags, known | await self.versions(scope.versions(tags))
                )
            data = encode_value(full, draft.value, self.max_value)
        entry = encode_entry(self.clock() + draft.ttl, known, data)
        if not await self.store.set(f"e:{full}", entry, draft.ttl):
            return None
        scope.counts.stored += 1
        return data

    async def delete(self, scope: Scope, key: str) -> None:
        """Delete a value."""
        full = scope.key(key)
        if self._bus.heard(CACHE_DELETE.name):
            await self._bus.emit(CACHE_DELETE.name, full)
        await self._remove([f"e:{full}"], scope)

    async def clear(self, scope: Scope, tags: tuple[str, ...], path: str | None) -> None:
        """Delete all values of a namespace, or those that have one of the tags or the path."""
        if self._bus.heard(CACHE_CLEAR.name):
            await self._bus.emit(CACHE_CLEAR.name, scope.name, tags, path)
        own = scope.versions()
        names = [*tags, *([] if path is None else [path_tag(path)])]
        gone = scope.versions(names)[len(own) :] if names else own[-1:]
        await self._remove(gone, scope)

    async def _remove(self, keys: list[str], scope: Scope) -> None:
        if isinstance(self.store, MemoryStore):
            await self.store.delete_many(keys)
        else:
            await self.store.delete_many(keys, instead=scope.versions()[-1])

    # -- computing

    async def compute(
        self,
        scope: Scope,
        key: str,
        draft: Draft,
        wanted: Any,
        compute: Callable[[], Awaitable[object]],
    ) -> Found:
        """Return the value of a key; compute and store it if there is none.

        The caller leads the flight of the key, so nobody else in this process does this.
        """
        found = await self.look(scope, key, draft.tags, wanted)
        if found.data is not None:
            scope.counts.hits += 1
            return found
        async with self.turn(scope.key(key)) as waited:
            if waited:
                found = await self.look(scope, key, draft.tags, wanted, ask=False)
                if found.data is not None:
                    scope.counts.hits += 1
                    return found
            scope.counts.misses += 1
            known = await self.prepare(scope, draft.tags, found.versions)
            draft.value = value = await compute()
            try:
                data = encode_value(scope.key(key), value, self.max_value)
            except TooLarge as error:
                self.warn(str(error))
                raise Uncached(value) from error
            try:
                stored = await self.write(scope, key, draft, data, known)
            except CacheError as error:  # a hook made it invalid
                self.warn(f"a hook on cache:set: {error}")
                stored = None
            data = data if stored is None else stored
            return Found(data, decode_value(data, wanted))

    @asynccontextmanager
    async def turn(self, full: str) -> AsyncIterator[bool]:
        """Wait until no other process computes a key, for `patience` seconds at most.

        Yields whether it has waited, so that the value may be there by now.
        """
        name, token = f"c:{full}", new_version().decode()
        waited, pause, end = False, _POLL, time.monotonic() + self._patience
        store = self.store
        try:
            while not await store.claim(name, token, self._patience):
                waited = True
                if time.monotonic() > end:
                    break
                await anyio.sleep(pause * (0.5 + random.random()))
                pause = min(2 * pause, _POLL_MOST)
            yield waited
        finally:
            if store.shared:
                # Also if this is cancelled: the others would wait until it ends by itself.
                with anyio.CancelScope(shield=True):
                    await store.release(name, token)

    def warn(self, message: str) -> None:
        """Log a warning, one a minute."""
        if time.monotonic() - self._warned > 60.0:
            self._warned = time.monotonic()
            self._warn(message)


class Uncached(Exception):
    """A value was computed that is too large for the cache."""

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.value = value

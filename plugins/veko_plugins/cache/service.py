"""`Cache`: what plugins use, as `context.cache` and as the service `cache`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Final, TypeVar, overload

from .engine import Engine, Found, Scope, Uncached
from .entries import Draft, check_key, check_tags, check_ttl, decode_value, encode_value
from .errors import CacheError
from .exchange import Middleware
from .responses import Responses
from .rules import Rules
from .stats import CacheStats
from .values import Values

__all__ = ["Cache"]

_T = TypeVar("_T")
_D = TypeVar("_D")
_NOTHING: Final = object()


class Cache:
    """A namespace of the cache: values that may be lost at any time, and expire.

    A plugin has its own as `context.cache`. The service `cache` is the application's; clearing that
    one clears those of all plugins.

    A value comes back as MessagePack has it: a struct or a dataclass as a dict, unless `type` says
    what it is. Nobody gets the object that another one holds.

    Args:
        engine: The engine.
        scopes: The namespaces that are known.
        name: Its name.
    """

    def __init__(self, engine: Engine, scopes: Callable[[str], Scope], name: str) -> None:
        self._engine = engine
        self._scopes = scopes
        self._scope = scopes(name)

    @property
    def name(self) -> str:
        """The plugin's name; empty for the application's own namespace."""
        return self._scope.name

    @property
    def reached(self) -> bool:
        """Whether the store works; while it does not, nothing is found and nothing is stored."""
        return not getattr(self._engine.store, "down", False)

    def namespace(self, name: str) -> Cache:
        """Return the namespace of a plugin.

        Args:
            name: The plugin's name.

        Raises:
            CacheError: It cannot be one.
        """
        if ":" in check_key(name):
            raise CacheError(f"the namespace {name!r} has a colon", remedy="Use a plugin's name.")
        return Cache(self._engine, self._scopes, name)

    def stats(self, name: str | None = None) -> CacheStats:
        """Return what was counted in this process.

        Args:
            name: The namespace; `None` for this one.
        """
        counts = (self._scope if name is None else self._scopes(name)).counts
        return CacheStats(counts.hits, counts.misses, counts.stored)

    @overload
    async def get(self, key: str) -> Any: ...
    @overload
    async def get(self, key: str, default: _D) -> Any | _D: ...
    @overload
    async def get(self, key: str, default: _D, *, type: type[_T]) -> _T | _D: ...
    @overload
    async def get(self, key: str, *, type: type[_T]) -> _T | None: ...
    async def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:
        """Return a value.

        Args:
            key: Its key, 1 to 512 characters of any kind.
            default: What to return if there is none.
            type: What it is; a value of another type counts as missing, as after an update.

        Raises:
            CacheError: The key is not valid.
        """
        found = await self._engine.look(self._scope, check_key(key), (), type)
        counts = self._scope.counts
        if found.data is None:
            counts.misses += 1
            return default
        counts.hits += 1
        return found.value

    async def set(
        self, key: str, value: object, *, ttl: float | None = None, tags: Collection[str] = ()
    ) -> bool:
        """Store a value.

        Args:
            key: Its key, 1 to 512 characters of any kind.
            value: Plain data, a `msgspec.Struct` or a dataclass.
            ttl: Seconds until it expires; `None` for the setting `ttl`.
            tags: What it is deleted by; see `clear`.

        Returns:
            Whether it is stored: not if a hook refuses it, or the server is gone.

        Raises:
            CacheError: An argument is not valid, or the value is too large.
        """
        engine, scope = self._engine, self._scope
        full = scope.key(check_key(key))
        draft = Draft(value, self._ttl(ttl), check_tags(tags))
        data = encode_value(full, value, engine.max_value)
        there = await engine.versions(scope.versions(draft.tags))
        known = await engine.prepare(scope, draft.tags, there)
        return await engine.write(scope, key, draft, data, known) is not None

    async def delete(self, key: str) -> None:
        """Delete a value, in all processes.

        While the server is gone, it is deleted as soon as that is back.

        Raises:
            CacheError: The key is not valid.
        """
        await self._engine.delete(self._scope, check_key(key))

    async def clear(self, *, tags: Collection[str] = (), path: str | None = None) -> None:
        """Delete values together, in all processes, also those that are just being computed.

        Args:
            tags: Delete those that have one of these tags.
            path: Delete the responses to requests for this path, and for those below it.

        Without arguments, all values of this namespace are deleted.

        Raises:
            CacheError: A tag or the path is not valid.
        """
        if path is not None and not path.startswith("/"):
            raise CacheError(f"the path {path!r} does not begin with /", remedy='Use "/blog".')
        path = None if path is None else path.rstrip("/") or "/"
        await self._engine.clear(self._scope, check_tags(tags), path)

    @overload
    async def get_or_set(
        self,
        key: str,
        compute: Callable[[], Awaitable[Any] | Any],
        *,
        ttl: float | None = ...,
        tags: Collection[str] = ...,
    ) -> Any: ...
    @overload
    async def get_or_set(
        self,
        key: str,
        compute: Callable[[], Awaitable[Any] | Any],
        *,
        type: type[_T],
        ttl: float | None = ...,
        tags: Collection[str] = ...,
    ) -> _T: ...
    async def get_or_set(
        self,
        key: str,
        compute: Callable[[], Awaitable[Any] | Any],
        *,
        type: Any = Any,
        ttl: float | None = None,
        tags: Collection[str] = (),
    ) -> Any:
        """Return a value; compute and store it if there is none.

        However many ask at once, one computes, and the others wait for it: `wait` seconds at most
        (a setting), on Redis those of other processes too. If it fails, they get its error. If it
        is cancelled, another one computes.

        Args:
            key: Its key, 1 to 512 characters of any kind.
            compute: Returns the value, `def` or `async def`, without arguments.
            type: What the value is.
            ttl: Seconds until it expires; `None` for the setting `ttl`.
            tags: What it is deleted by; see `clear`.

        Returns:
            The value, as `get` would return it. One that is too large is returned, and not stored.

        Raises:
            CacheError: An argument is not valid, or the value cannot be encoded.
            Exception: What `compute` raises.
        """
        engine, scope = self._engine, self._scope
        draft = Draft(None, self._ttl(ttl), check_tags(tags))
        led = False

        async def call() -> object:
            value = compute()
            return await value if inspect.isawaitable(value) else value

        async def lead() -> Found:
            nonlocal led
            led = True
            return await engine.compute(scope, key, draft, type, call)

        try:
            found: Found = await engine.flights.run(scope.key(check_key(key)), lead)
        except Uncached as too_large:
            return too_large.value
        if led:
            return found.value
        scope.counts.hits += 1
        return decode_value(found.data or b"", type)

    def cached(
        self,
        ttl: float | None = None,
        *,
        tags: Collection[str] | Callable[[Any], Collection[str]] = (),
        vary: Collection[str] = (),
        key: Callable[[Any], str | None] | None = None,
        statuses: Collection[int] = (200, 203, 301, 308),
        public: bool = False,
        cookies: bool = False,
        max_age: int | None = None,
        obey: bool = True,
        encoded: bool = True,
    ) -> Middleware:
        """Return a middleware that answers GET and HEAD from this namespace, after RFC 9111.

        For one route, `add_route("GET", "/blog", cache.cached(60), handler)`; for all, with
        `add_middleware`. There it answers before the guards of routes: see the guide.

        Args:
            ttl: Seconds that a response lives, unless it says so in `Cache-Control` or `Expires`;
                `None` for the setting `ttl`.
            tags: What responses are deleted by, or a function of the request that returns it.
            vary: Headers that each have responses of their own, beside those in `Vary`.
            key: Returns for a request what it asks for, in place of its host, path and query;
                `None` leaves it alone.
            statuses: The statuses that are stored.
            public: All clients get the same: requests with cookies or `Authorization` are answered
                from the cache too. Otherwise only if the response itself says `public`.
            cookies: Responses that set cookies are stored, and all clients get these.
            max_age: Seconds that clients may keep a response, unless it says so itself.
            obey: Whether clients decide by `Cache-Control` what they get (`no-cache`, `max-age`).
            encoded: `False` keeps what the handler returns instead of the response: it is encoded
                for each request, and middlewares inside run. For a route of its own, and functions.

        Raises:
            CacheError: An argument is not valid.
        """
        find = tags if callable(tags) else partial(_always, check_tags(tags))
        rules = Rules(
            self._ttl(ttl), find, tuple(sorted({name.lower() for name in vary})), key,
            frozenset(statuses), public, cookies, max_age, obey,
        )  # fmt: skip
        if not encoded:
            return Values(self._engine, self._scope, rules).handle
        return Responses(self._engine, self._scope, rules, self._engine.received).handle

    def _ttl(self, ttl: float | None) -> float:
        return self._engine.ttl if ttl is None else check_ttl(ttl)

    def __repr__(self) -> str:
        return f"<Cache {self.name or 'of the application'}>"


def _always(tags: tuple[str, ...], request: object) -> tuple[str, ...]:
    return tags

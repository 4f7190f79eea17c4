"""JSON responses in Redis: a service, a middleware, and routes to look at it and to clear it.

It has a connection of its own (`redis.asyncio`), which is opened when it loads and closed when it
unloads. Its hooks on `cache:get`, `cache:set`, `cache:delete` and `cache:clear` answer the service
`cache`, if the application has one: values of other plugins are in Redis then, too.

A Redis that is gone fails no request: nothing is found, nothing is stored, the log has one warning,
and once a second one request tries again.

For what this plugin does in 150 lines to show how, the option `cache = "redis://…"` does more.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from veko_plugins import CallNext, Context, Request, Response

name = "redis-cache"
version = "1.0.0"
description = "JSON responses and values in Redis"
peer_dependencies = ["redis>=5.2"]

T = TypeVar("T")
PATIENCE: Final = 0.5
"""Seconds that a request waits for Redis."""
PAUSE: Final = 1.0
"""Seconds after which a Redis that is gone is tried again."""
PERSONAL: Final = ("authorization", "cookie")
"""Headers of requests whose responses may not be for everybody."""


class Settings(msgspec.Struct, frozen=True):
    """`[plugins.redis-cache]`: `ttl` in seconds; below `paths`, all JSON responses are cached."""

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: Annotated[str | None, msgspec.Meta(extra={"secret": True})] = None
    ttl: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    prefix: Annotated[str, msgspec.Meta(min_length=1)] = "redis-cache:"
    paths: tuple[str, ...] = ()


config_schema = Settings


class RedisCache:
    """The service `redis-cache`: values that JSON has, by key."""

    def __init__(self, client: Redis, config: Settings, context: Context) -> None:
        self.hits = self.misses = 0
        self._client = client
        self._config = config
        self._context = context
        self._retry_at = 0.0

    async def get(self, key: str) -> Any:
        """Return a value, or `None`."""
        found = await self._ask(lambda: self._client.get(self._config.prefix + key), None)
        try:
            return None if found is None else msgspec.json.decode(found)
        except msgspec.DecodeError:
            return None  # somebody else has written it

    async def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Store a value for some seconds."""
        milliseconds = max(1, int((self._config.ttl if ttl is None else ttl) * 1000))
        data = msgspec.json.encode(value)
        await self._ask(
            lambda: self._client.set(self._config.prefix + key, data, px=milliseconds), None
        )

    async def delete(self, key: str) -> None:
        """Delete a value."""
        await self._ask(lambda: self._client.unlink(self._config.prefix + key), None)

    async def clear(self) -> int:
        """Delete all values of this plugin, and nothing else in the database; returns how many."""

        async def sweep() -> int:
            count = 0
            begins = "".join(f"\\{c}" if c in "*?[]\\^-" else c for c in self._config.prefix)
            async for found in self._client.scan_iter(match=f"{begins}*", count=1000):
                count += await self._client.unlink(found)
            return count

        return await self._ask(sweep, 0)

    async def stats(self) -> dict[str, Any]:
        """Return what Redis says of its memory, and how often a response was found."""
        redis = await self._ask(lambda: self._client.info("memory"), None)
        return {"redis": redis, "hits": self.hits, "misses": self.misses}

    def middleware(self, ttl: float | None = None) -> Callable[[Request, CallNext], Any]:
        """Return a middleware that answers GET with JSON from the cache."""

        async def json_cache(request: Request, call_next: CallNext) -> Response:
            if request.method != "GET" or any(header in request.headers for header in PERSONAL):
                return await call_next(request)
            key = f"GET {request.url}"
            found = await self.get(key)
            if found is not None:
                self.hits += 1
                return Response(found["json"], headers={"x-cache": "hit"})
            self.misses += 1
            response = await call_next(request)
            if response.body is not None and _is_for_everybody(response):
                try:
                    await self.set(key, {"json": msgspec.json.decode(response.body)}, ttl)
                except msgspec.DecodeError:
                    pass  # it says that it is JSON, and is not
            response.headers["x-cache"] = "miss"
            return response

        return json_cache

    async def _ask(self, call: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """Return the answer of Redis, or something else if it is gone."""
        if time.monotonic() < self._retry_at:
            return otherwise
        try:
            answer = await call()
        except asyncio.CancelledError:
            # redis-py keeps a connection that was cancelled while it logged in, and then takes the
            # answer to the login for that to the next command.
            await self._client.connection_pool.disconnect(inuse_connections=True)
            raise
        except (RedisError, OSError) as error:
            if not self._retry_at:
                self._context.log("warning", f"Redis is not reached: {error}")
            self._retry_at = time.monotonic() + PAUSE
            return otherwise
        if self._retry_at:
            self._context.log("info", "Redis is back")
        self._retry_at = 0.0
        return answer


def _is_for_everybody(response: Response) -> bool:
    says = response.headers.get("cache-control", "").lower()
    return (
        response.status == 200
        and response.media_type == "application/json"
        and "set-cookie" not in response.headers
        and "vary" not in response.headers
        and not any(word in says for word in ("private", "no-store", "no-cache"))
    )


async def load(config: Settings, context: Context) -> None:
    client = Redis(
        host=config.host,
        port=config.port,
        db=config.db,
        username=config.username,
        password=config.password,
        socket_connect_timeout=PATIENCE,
        socket_timeout=PATIENCE,
        retry=Retry(NoBackoff(), 1),
    )
    await context.enter(client)  # it is closed at unload
    cache = RedisCache(client, config, context)
    if await cache._ask(client.ping, False):
        context.log("success", "connected to Redis")

    async def clear() -> dict[str, Any]:
        """Delete everything that is cached."""
        return {"message": "the cache is empty", "deleted": await cache.clear()}

    async def store(key: str, value: object, ttl: float) -> None:
        await cache.set(key, value, ttl)

    async def forget() -> None:
        # Redis does not know which of its values have a tag: all go, rather than one too few.
        await cache.clear()

    context.add_route("GET", "/cache/stats", cache.stats)
    context.add_route("DELETE", "/cache/clear", clear)
    if config.paths:
        context.add_middleware(_below(config.paths, cache.middleware()))
    context.hook("cache:get", cache.get)
    context.hook("cache:set", store, observe=True)  # if it fails, the value is stored elsewhere
    context.hook("cache:delete", cache.delete)
    context.hook("cache:clear", forget)
    context.provide("redis-cache", cache)


def _below(
    paths: tuple[str, ...], around: Callable[[Request, CallNext], Any]
) -> Callable[[Request, CallNext], Any]:
    """Return a middleware that is used for some paths alone."""

    async def json_cache(request: Request, call_next: CallNext) -> Any:
        if request.path.startswith(paths):
            return await around(request, call_next)
        return await call_next(request)

    return json_cache

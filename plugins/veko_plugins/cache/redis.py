"""The store on a Redis server: Litestar's `RedisStore`, and what that one lacks.

An entry and the versions that it depends on come in one round trip (`MGET`), and one process at a
time computes a key (`SET NX`). `RedisStore.delete_all` is not used: it searches the whole server
while it answers nobody else, and takes other namespaces that begin alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from litestar.stores.redis import RedisStore as LitestarRedis
from redis import exceptions as errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from veko.errors import OptionError

from .._lib.server_urls import location_of, split_prefix
from .errors import Refused
from .litestar import LitestarStore, seconds

__all__ = ["RedisStore"]

_T = TypeVar("_T")
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
_SLACK: Final = 4.0
"""How many times the time limit a connection may take: nobody waits for it then any more."""


class RedisStore(LitestarStore):
    """A Redis server.

    Args:
        url: Its URL; the parameter `prefix` begins all names on the server, by default `veko`.
        timeout: Seconds that an operation may take.

    Raises:
        OptionError: The URL is not valid.
    """

    def __init__(self, url: str, timeout: float) -> None:
        url, prefix = split_prefix(url, "cache")
        location = location_of(url)
        limit = timeout * _SLACK
        try:
            self._client: Redis = Redis.from_url(
                url,
                socket_connect_timeout=limit,
                socket_timeout=limit,
                # Once more, at once: the server may have closed a connection that was not used.
                retry=Retry(NoBackoff(), 1),
            )
        except (ValueError, TypeError) as error:
            raise OptionError(
                f"cache {location} is not valid: {error}",
                remedy="Use redis://user:password@host:port/0.",
            ) from None
        self._prefix = f"{prefix}:cache"
        super().__init__(
            LitestarRedis(self._client, namespace=self._prefix), location=location, shared=True
        )
        self._release = self._client.register_script(_RELEASE)

    async def open(self) -> None:
        """Look whether the server lets us in; if there is none, that is found out later.

        Raises:
            OptionError: It refuses the login.
        """
        try:
            await cast("Awaitable[Any]", self._client.ping())
        except (errors.AuthenticationError, errors.AuthorizationError) as error:
            raise OptionError(
                f"cache {self.location} refuses the login: {error}",
                remedy="Check user and password in the URL.",
            ) from None
        except (errors.RedisError, OSError):
            pass  # the first operation reports it, and what it does then is the same

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys."""
        found: Any = await _refusable(self._client.mget([*map(self._name, keys)]))
        return list(found)

    async def set(self, key: str, value: bytes, ttl: float | None) -> bool:
        """Set a value."""
        return await _refusable(super().set(key, value, ttl))

    async def add_many(self, values: Mapping[str, bytes], ttl: float | None) -> list[bytes]:
        """Set each value where there is none; return those that are there then."""
        pipe = self._client.pipeline(transaction=False)
        for key, value in values.items():
            pipe.set(self._name(key), value, nx=True, ex=seconds(ttl))
        pipe.mget([*map(self._name, values)])
        found = (await _refusable(pipe.execute()))[-1]
        return [there or value for value, there in zip(values.values(), found, strict=True)]

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Delete keys."""
        await _refusable(self._client.unlink(*map(self._name, keys)))

    async def claim(self, key: str, token: str, seconds: float) -> bool:
        """Claim a key, if no other process has it."""
        life = max(1, int(seconds * 1000))
        return bool(await _refusable(self._client.set(self._name(key), token, nx=True, px=life)))

    async def release(self, key: str, token: str) -> None:
        """Give a claim up."""
        await _refusable(self._release(keys=[self._name(key)], args=[token]))

    async def ping(self) -> None:
        """Ask the server."""
        await cast("Awaitable[Any]", self._client.ping())

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        await self._client.connection_pool.disconnect(inuse_connections=True)

    def _name(self, key: str) -> str:
        return f"{self._prefix}:{key}"


async def _refusable(call: Awaitable[_T]) -> _T:
    try:
        return await call
    except (errors.ConnectionError, errors.TimeoutError):  # which some of the others are, too
        raise
    except errors.ResponseError as error:
        raise Refused(str(error)) from error

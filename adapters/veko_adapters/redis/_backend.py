"""The backend: a hash per namespace, a stream of changes, and a script that writes both.

Keys, after the prefix: `:revision` counts the transactions, `:namespaces` has the names,
`:entries:<namespace>` the entries, `:changes` the latest transactions, `:done:<token>` their
revisions for some minutes, so that a transaction whose answer was lost is not carried out again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Final, TypeVar, cast

from redis import exceptions as errors
from redis.asyncio import Redis
from veko.errors import OptionError, StorageError
from veko_plugins.storage import (
    HEARTBEAT,
    Changes,
    Contents,
    Lagged,
    Record,
    Unreachable,
    location_of,
    split_prefix,
)

from .._storage import LOGGED, OneChange, packed, records

__all__ = ["RedisBackend"]

_Answer = TypeVar("_Answer")

_log: Final = logging.getLogger("veko.storage")
# Seconds.
_REMEMBERED: Final = 600
_BLOCK: Final = int(HEARTBEAT * 800)

# The transaction's parts follow one another in ARGV: "c" ns, "d" ns key, "s" ns key value. Before
# them may be "?" ns key, then "1" value or "0" for no entry: what must be there.
_WRITE: Final = """
local prefix, at = KEYS[1], 4
local done = redis.call('GET', prefix .. ':done:' .. ARGV[1])
if done then return tonumber(done) end
if ARGV[at] == '?' then
    local value = redis.call('HGET', prefix .. ':entries:' .. ARGV[at + 1], ARGV[at + 2])
    if ARGV[at + 3] == '1' then
        if value ~= ARGV[at + 4] then return -1 end
    elseif value then
        return -1
    end
    at = at + 5
end
local revision = redis.call('INCR', prefix .. ':revision')
while at <= #ARGV do
    local kind, name = ARGV[at], ARGV[at + 1]
    local entries = prefix .. ':entries:' .. name
    if kind == 'c' then
        redis.call('DEL', entries)
        redis.call('SREM', prefix .. ':namespaces', name)
        at = at + 2
    elseif kind == 'd' then
        if redis.call('HDEL', entries, ARGV[at + 2]) == 1
            and redis.call('EXISTS', entries) == 0 then
            redis.call('SREM', prefix .. ':namespaces', name)
        end
        at = at + 3
    else
        redis.call('HSET', entries, ARGV[at + 2], ARGV[at + 3])
        redis.call('SADD', prefix .. ':namespaces', name)
        at = at + 4
    end
end
redis.call('XADD', prefix .. ':changes', 'MAXLEN', '~', ARGV[3], revision .. '-0', 'c', ARGV[2])
redis.call('SET', prefix .. ':done:' .. ARGV[1], revision, 'EX', REMEMBERED)
return revision
""".replace("REMEMBERED", str(_REMEMBERED))


class RedisBackend:
    """A Redis server; see `StorageBackend`.

    Args:
        url: Its URL.

    Raises:
        OptionError: The URL is not valid.
    """

    def __init__(self, url: str) -> None:
        url, self._prefix = split_prefix(url)
        self.location = location_of(url)
        try:
            self._client: Redis = Redis.from_url(
                url, socket_connect_timeout=None, socket_timeout=None, retry=None
            )
        except (ValueError, TypeError) as error:
            raise OptionError(
                f"storage {self.location} is not valid: {error}",
                remedy="Use redis://user:password@host:port/0",
            ) from None
        self._script = self._client.register_script(_WRITE)

    async def open(self) -> None:
        """Connect."""
        await self._call(cast(Awaitable[Any], self._client.ping()))
        if await self._forgets():
            _log.warning(
                "%s may lose its entries when it restarts: most versions of Redis replay "
                "transactions from the append-only file as the user `default`, who may not carry "
                "them out here. Give that user a password and all permissions "
                "(user default on >password ~* &* +@all)",
                self.location,
            )

    async def _forgets(self) -> bool:
        """Return whether the server may drop the transactions in its own file (redis#14541)."""
        try:
            info = await self._call(self._client.info("persistence"))
            user: Any = await self._call(self._client.acl_getuser("default"))
        except StorageError:  # it may not ask
            return False
        if not info["aof_enabled"]:
            return False
        return not user or "+@all" not in user["categories"] or "~*" not in user["keys"]

    async def load(self) -> Contents:
        """Return all entries, of one moment."""
        names: list[bytes] = []
        while True:
            pipe = self._client.pipeline(transaction=True)
            pipe.get(f"{self._prefix}:revision")
            pipe.smembers(f"{self._prefix}:namespaces")
            for name in names:
                pipe.hgetall(self._entries(name))
            revision, found, *hashes = await self._call(pipe.execute())
            if not found <= {*names}:
                names = sorted(found)
                continue
            entries = {
                name.decode(): {key.decode(): value for key, value in one.items()}
                for name, one in zip(names, hashes, strict=True)
            }
            return Contents(entries, int(revision or 0))

    async def follow(self, revision: int) -> AsyncIterator[Sequence[Record]]:
        """Yield the changes after a revision."""
        stream = f"{self._prefix}:changes"
        while True:
            found: Any = await self._call(
                self._client.xread({stream: f"{revision}-0"}, count=500, block=_BLOCK)
            )
            # The answer is a mapping in RESP3, and a list of pairs in RESP2.
            streams = found.values() if isinstance(found, dict) else [one[1] for one in found or ()]
            items = list(itertools.chain.from_iterable(streams))
            if items and isinstance(items[0], list):
                items = list(itertools.chain.from_iterable(items))
            if not items:
                now = int(await self._call(self._client.get(f"{self._prefix}:revision")) or 0)
                if now != revision:
                    # Either its changes are gone, or it was written in this moment.
                    if now < revision or not await self._has(revision + 1):
                        raise Lagged(f"{self.location} has lost changes")
                    continue
                yield ()
                continue
            batch: list[Record] = []
            for identifier, fields in items:
                number = int(identifier.partition(b"-")[0])
                data = fields[b"c"]
                if number != revision + 1 or not data:
                    if batch:
                        yield batch
                    raise Lagged(f"{self.location} keeps no changes after {revision}")
                revision = number
                batch += records(number, data)
            yield batch

    async def _has(self, revision: int) -> bool:
        stream, identifier = f"{self._prefix}:changes", f"{revision}-0"
        return bool(await self._call(self._client.xrange(stream, identifier, identifier)))

    async def write(self, changes: Sequence[Changes], token: str) -> int:
        """Carry out changes in one transaction."""
        parts: list[str | bytes] = []
        for one in changes:
            if one.cleared:
                parts += ("c", one.namespace)
            for key, value in one.entries.items():
                if value is not None:
                    parts += ("s", one.namespace, key, value)
                elif not one.cleared:
                    parts += ("d", one.namespace, key)
        return await self._run([token, packed(changes), str(LOGGED), *parts])

    async def get(self, namespace: str, key: str) -> bytes | None:
        """Return the encoded value of an entry, or `None`."""
        found = self._client.hget(self._entries(namespace.encode()), key)
        return await self._call(cast(Awaitable[bytes | None], found))

    async def compare_and_set(
        self, namespace: str, key: str, expected: bytes | None, value: bytes | None, token: str
    ) -> int | None:
        """Set or delete an entry if its encoded value is the expected one."""
        change = OneChange(namespace, {key: value})
        condition = ("?", namespace, key, "0" if expected is None else "1", expected or b"")
        last = ("d", namespace, key) if value is None else ("s", namespace, key, value)
        revision = await self._run([token, packed([change]), str(LOGGED), *condition, *last])
        return None if revision < 0 else revision

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        await self._client.connection_pool.disconnect(inuse_connections=True)

    def _entries(self, namespace: bytes) -> bytes:
        return f"{self._prefix}:entries:".encode() + namespace

    async def _run(self, arguments: list[str | bytes]) -> int:
        return int(await self._call(self._script(keys=[self._prefix], args=arguments)))

    async def _call(self, call: Awaitable[_Answer]) -> _Answer:
        try:
            return await call
        except asyncio.CancelledError:
            # The client would keep a connection that is half open, or whose answer is outstanding.
            await self._client.connection_pool.disconnect(inuse_connections=True)
            raise
        except (errors.AuthenticationError, errors.AuthorizationError) as error:
            raise StorageError(
                f"{self.location} refuses the login: {error}",
                remedy="Check user and password in the URL",
            ) from None
        except (
            errors.ConnectionError,
            errors.TimeoutError,
            errors.ReadOnlyError,
            OSError,
        ) as error:
            raise Unreachable(f"{self.location} is not reached: {error}") from None
        except errors.RedisError as error:
            remedy = "Give it more memory" if str(error).startswith("OOM") else None
            raise StorageError(f"{self.location} refuses: {error}", remedy=remedy) from None

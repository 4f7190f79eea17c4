"""Limits on guessing passwords: by address, and by account.

Each is a bucket of tries that fills again with time, kept in the storage, so that all workers
count together. A try is taken before the password is checked, and given back if it was right.

An account has its own bucket, which fills ten times as fast as an address's: one client runs out of
tries long before it locks others out of an account, and many clients slow others down only as long
as they keep guessing. An address from which a user has a session has a bucket of its own for that
user, and nobody else's tries count there.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio

from .types import Busy, Connection

if TYPE_CHECKING:
    from .settings import Settings
    from .types import Namespace

__all__ = ["Limits", "TooMany", "address_of"]

PREFIX: Final = "tries:"
# How many times an account's bucket holds what an address's does, and how much faster it fills.
_ACCOUNT_HOLDS: Final = 5
_ACCOUNT_FILLS: Final = 10
_TRIES: Final = 100
# Seconds that a try waits for those before it; they wait for the storage.
_PATIENCE: Final = 3.0


class TooMany(Exception):
    """There are no tries left.

    Attributes:
        wait: Seconds until there is one.
    """

    def __init__(self, wait: float) -> None:
        super().__init__()
        self.wait = wait


class Limits:
    """The buckets of tries.

    Args:
        storage: Where they are kept.
        settings: How many tries there are, and how fast they come back.
    """

    def __init__(self, storage: Namespace, settings: Settings) -> None:
        self._storage = storage
        self._holds = settings.attempts
        self._fills = settings.attempts / settings.attempts_period
        self._lock = anyio.Lock()

    def login(self, key: str | None, address: str | None, known: bool) -> dict[str, float]:
        """Return the buckets of a login, each with how much faster it fills than an address's.

        Args:
            key: The key of the name; `None` if nobody can have that name.
            address: The client's address; `None` if it is not known.
            known: Whether the user has a session from that address.
        """
        if known:
            return {_bucket("pair", key, address): 1}
        buckets: dict[str, float] = {}
        if address is not None:
            buckets[_bucket("address", address)] = 1
        if key is not None:
            buckets[_bucket("account", key)] = _ACCOUNT_FILLS
        return buckets

    def register(self, address: str | None) -> dict[str, float]:
        """Return the buckets of a registration."""
        return {} if address is None else {_bucket("register", address): 1}

    async def take(self, buckets: Mapping[str, float]) -> None:
        """Take a try out of each bucket.

        Raises:
            TooMany: One of them is empty.
            Busy: The storage does not answer those that came before.
        """
        # Before waiting, and before anything is taken: a flood costs a look, and a client whose
        # own tries are used up takes none from an account.
        for bucket, speed in buckets.items():
            self._left(bucket, speed)
        async with self._turn():
            for bucket, speed in buckets.items():
                await self._change(bucket, speed, -1)

    async def give_back(self, buckets: Mapping[str, float]) -> None:
        """Put back what `take` took: the password was right.

        Raises:
            Busy: The storage does not answer those that came before.
        """
        async with self._turn():
            for bucket, speed in buckets.items():
                await self._change(bucket, speed, 1)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Let the tries of this process come one after the other, instead of writing again."""
        try:
            with anyio.fail_after(_PATIENCE):
                await self._lock.acquire()
        except TimeoutError:
            raise Busy from None
        try:
            yield
        finally:
            self._lock.release()

    def _left(self, bucket: str, speed: float) -> tuple[Any, float]:
        """Return the stored state of a bucket, and the tries in it now.

        Raises:
            TooMany: It is empty.
        """
        before, now = self._storage.get(bucket), time.time()
        holds, fills = self._size(speed)
        left, at = before or (holds, now)
        left = min(holds, left + max(0.0, now - at) * fills)
        if left < 1:
            raise TooMany((1 - left) / fills)
        return before, left

    def _size(self, speed: float) -> tuple[float, float]:
        """Return how many tries a bucket holds, and how many come back in a second."""
        holds = self._holds * (_ACCOUNT_HOLDS if speed > 1 else 1)
        return holds, self._fills * speed

    async def _change(self, bucket: str, speed: float, by: int) -> None:
        holds, fills = self._size(speed)
        for pause in pauses():
            try:
                before, left = self._left(bucket, speed)
            except TooMany:
                if by < 0:
                    raise
                before, left = self._storage.get(bucket), 0.0
            left = min(holds, left + by)
            # Once it is full again, it need not be kept.
            ttl = max(1.0, (holds - left) / fills)
            if await self._storage.compare_and_set(bucket, before, [left, time.time()], ttl=ttl):
                return
            await anyio.sleep(pause)
        raise TooMany(1.0)  # closed when in doubt


def pauses() -> Iterator[float]:
    """Yield how long to wait, in seconds, before each further try of a compare-and-set."""
    for count in range(_TRIES):
        yield random.uniform(0, min(0.05, 0.001 * 2**count))


def address_of(request: Connection | None) -> str | None:
    """Return a client's address as it is counted: for IPv6 the network, which one client has."""
    client: Any = request.client if request is not None else None
    if client is None:
        return None
    host = str(client[0])
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64] or None
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def retry_after(seconds: float) -> str:
    """Return the value of a `Retry-After` header."""
    return str(max(1, math.ceil(seconds)))


def _bucket(*parts: str | None) -> str:
    text = "\0".join(str(part) for part in parts)
    return PREFIX + hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()

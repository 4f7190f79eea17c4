"""A store that may fail: every wait is bounded, an outage is reported once, nobody gets an error.

While the server is gone, every key is a miss and nothing is stored, without waiting; one task looks
each second whether it is back. What should have been deleted meanwhile is deleted first when it is,
so an outage brings nothing back that was invalid.

Cost: a task for each operation, some 20 us beside a round trip. It is what an operation runs in so
that a caller who is cancelled leaves no connection with half an answer on it
(`test_a_cancelled_request_leaves_no_answer_to_the_next`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

from veko.errors import OptionError

from .errors import Refused
from .stores import Store

__all__ = ["GuardedStore"]

_T = TypeVar("_T")
CONNECTIONS: Final = 64
"""Operations that run at once. redis-py refuses the 101st connection: an outage that is none."""
_GRACE: Final = 0.05
_EVERY: Final = 1.0
"""Seconds between two looks whether the server is back."""
_MOST_LOST: Final = 10_000
_QUIET: Final = 60.0
"""Seconds within which a server that refuses is reported once."""

Report = Callable[[Literal["warning", "info"], str], None]


class GuardedStore:
    """Stands in front of a store.

    Args:
        store: The store.
        timeout: Seconds that a caller waits for an operation.
        report: Writes to the log.
        spawn: Starts the task that looks whether the server is back.

    Attributes:
        down: Whether the server is gone.
        failures: How many operations have failed.
    """

    def __init__(
        self,
        store: Store,
        *,
        timeout: float,
        report: Report,
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
    ) -> None:
        self.location, self.shared = store.location, store.shared
        self.down = False
        self.failures = 0
        self._store = store
        self._timeout = timeout
        self._report = report
        self._spawn = spawn
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._running: set[asyncio.Task[Any]] = set()
        self._lost: dict[str, None] = {}
        self._refused = -_QUIET

    async def open(self) -> None:
        """Open it; a server that is gone is waited for in the background.

        Raises:
            OptionError: It cannot be used as it is configured.
        """
        await self._store.open()
        await self._run(None, self._store.ping)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys; all are missing while the server is gone."""
        found = await self._run(None, self._store.get_many, keys)
        return [None] * len(keys) if found is None else found

    async def set(self, key: str, value: bytes, ttl: float | None) -> bool:
        """Set a value.

        Returns:
            Whether it is stored.
        """
        return await self._run(False, self._store.set, key, value, ttl)

    async def add_many(self, values: Mapping[str, bytes], ttl: float | None) -> list[bytes]:
        """Set each value where there is none; return those that are there then."""
        return await self._run([*values.values()], self._store.add_many, values, ttl)

    async def delete_many(self, keys: Sequence[str], *, instead: str) -> None:
        """Delete keys, now or when the server is back.

        Args:
            keys: The keys.
            instead: The version to delete in their place if too many must be remembered.
        """
        if await self._run(False, self._done, self._store.delete_many, keys):
            return
        self._lost.update(dict.fromkeys(keys if len(self._lost) < _MOST_LOST else [instead]))
        if not self.down:  # refused, or too many wait: what is deleted now must not be read
            self._fall("values could not be deleted")

    async def claim(self, key: str, token: str, seconds: float) -> bool:
        """Claim a key among all processes; while the server is gone everybody has it."""
        return await self._run(True, self._store.claim, key, token, seconds)

    async def release(self, key: str, token: str) -> None:
        """Give a claim up; if that fails, it ends by itself."""
        await self._run(None, self._store.release, key, token)

    async def sweep(self) -> None:
        """Remove what has expired; it may take longer than other operations."""
        try:
            await self._store.sweep()
        except OSError as error:
            self._fall(str(error))

    async def close(self) -> None:
        """Let the operations that run end, and close the store."""
        if self._running:
            await asyncio.wait(self._running, timeout=self._timeout)
        for task in self._running:
            task.cancel()
        await self._store.close()

    async def watch(self) -> None:
        """Wait until the server is back."""
        while self.down:
            await asyncio.sleep(_EVERY)
            if not await self._run(False, self._done, self._store.ping, probe=True):
                continue
            lost = list(self._lost)
            delete = self._store.delete_many
            if lost and not await self._run(False, self._done, delete, lost, probe=True):
                continue
            for key in lost:
                self._lost.pop(key, None)
            self.down = bool(self._lost)  # more of it may have come meanwhile
            if not self.down:
                self._report("info", f"the cache {self.location} is back")

    @staticmethod
    async def _done(fn: Callable[..., Awaitable[object]], *args: object) -> bool:
        await fn(*args)
        return True

    async def _run(
        self,
        otherwise: _T,
        fn: Callable[..., Coroutine[Any, Any, _T]],
        *args: object,
        probe: bool = False,
    ) -> _T:
        """Return what an operation returns, or `otherwise` if it fails or the server is gone."""
        if (self.down and not probe) or not await self._slot():
            return otherwise
        if self.down and not probe:  # it fell while this waited
            self._slots.release()
            return otherwise
        task = asyncio.create_task(fn(*args))
        self._running.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait([task], timeout=self._timeout)
        if not done:
            # If the event loop was blocked, the answer is there and nobody has read it yet.
            done, _ = await asyncio.wait([task], timeout=_GRACE)
        if not done:
            self._fall(f"no answer within {self._timeout:g} s")
            return otherwise
        try:
            return task.result()
        except OptionError:
            raise
        except asyncio.CancelledError:
            return otherwise  # `close` has cancelled it, not the caller
        except Refused as error:
            self.failures += 1
            if time.monotonic() - self._refused > _QUIET:
                self._refused = time.monotonic()
                self._report("warning", f"the cache {self.location} refuses: {error}")
        except Exception as error:
            self._fall(str(error) or type(error).__name__)
        return otherwise

    async def _slot(self) -> bool:
        """Wait for one of the connections; `False` if that takes too long.

        A server that many wait for is not gone: this is a miss, and no outage.
        """
        if not self._slots.locked():
            return await self._slots.acquire()  # does not wait
        try:
            async with asyncio.timeout(self._timeout):
                return await self._slots.acquire()
        except TimeoutError:
            return False

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._slots.release()
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # else asyncio would log that nobody has asked for it

    def _fall(self, why: str) -> None:
        self.failures += 1
        if self.down:
            return
        self.down = True
        self._report(
            "warning",
            f"the cache {self.location} is not reached: {why}. Requests are answered without it "
            "until it is back",
        )
        self._spawn(self.watch)

"""The engine for servers that several processes share (Redis, PostgreSQL, NATS), over the port.

All entries are mirrored in memory when it opens, and the server's changes keep them current: `get`
stays a plain call. Writes show at once in this process; all writes of a turn, and those made while
the server is busy, go out as one transaction, one after the other. Other processes see a write some
milliseconds after it is durable; `compare_and_set` decides at the server.

Cost: a round trip for each transaction; all entries of all plugins in memory, in each process.

Promise: an awaited write is as durable as the server makes it, and `update` is complete or has no
effect. If the server is gone, a write is tried for `patience` seconds, then its handle raises; it
may or may not be stored then. A write is carried out once, even if its answer was lost. After a
reconnection everything is loaded again, and memory shows what the server has.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from veko.errors import StorageError

from .._lib.masking import masked_text
from .base import BaseEngine
from .codec import Expiring, Packed, expiry_of, unpack
from .mirror import Mirror
from .namespace import ABSENT, Encoded, Namespace, matches, overlay
from .port import HEARTBEAT, Changes, Contents, Lagged, StorageBackend, Unreachable
from .write import Write

__all__ = ["SharedEngine"]

_Answer = TypeVar("_Answer")

# Seconds for one call to the server.
_CALL: Final = 5.0
# Seconds without a sign of life after which the connection that follows is given up.
_SILENCE: Final = 2 * HEARTBEAT
# Seconds between two tries: doubled from the first to the last.
_FIRST, _LAST = 0.02, 1.0
# Seconds between two looks at the server's changes, while there are many.
_PAUSE: Final = 0.005
# Bytes after which a transaction takes no further writes.
_FULL: Final = 4 << 20
# Seconds for closing connections.
_RELEASE: Final = 2.0


class SharedEngine(BaseEngine):
    """A storage on a server, open inside its `async with`.

    Args:
        backend: The adapter.
        patience: Seconds during which a write, or opening, is tried while the server is gone.
        close_timeout: Seconds that `close()` waits for pending writes.
        report: Called with the error of a failed write that nobody awaited, and when the server
            is gone; by default they are logged.
    """

    shared = True

    def __init__(
        self,
        backend: StorageBackend,
        *,
        patience: float = 10.0,
        close_timeout: float = 10.0,
        report: Callable[[StorageError], object] | None = None,
    ) -> None:
        super().__init__(report)
        self._backend = backend
        self._patience = patience
        self._close_timeout = close_timeout
        self._mirror = Mirror(self._namespaces, self._watches, self._note)
        self._pending: dict[str, Write] = {}
        self._made: dict[Write, float] = {}
        self._batch: list[Write] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._removals: set[asyncio.Task[None]] = set()
        self._number = 0
        self._id = uuid.uuid4().hex
        self._closed_once = False
        self._reaching = 0  # how many calls wait until memory shows what they did

    def __repr__(self) -> str:
        return f"<SharedEngine {self._backend.location}>"

    async def open(self) -> None:
        """Connect and load all entries, within `patience`.

        Raises:
            StorageError: The server cannot be reached or refuses, or this engine was opened before.
        """
        self._begin()
        self._wake, self._moved = asyncio.Event(), asyncio.Condition()
        try:
            await self._persist(self._backend.open)
            contents = await self._persist(self._backend.load, limit=self._patience)
        except BaseException:
            await self._release()
            raise
        self._mirror.replace(contents, ())
        self._accepting = True
        self._tasks = [
            self._loop.create_task(self._write_all(), name="veko storage writes"),
            self._loop.create_task(self._follow(), name="veko storage follows"),
        ]

    def namespaces(self) -> list[str]:
        """Return the names that have entries at the server, sorted."""
        if not self._accepting:
            raise self._closed()
        return self._mirror.names()

    # The methods below are for this package.

    def read(self, namespace: str) -> dict[str, object]:
        """Return a namespace's encoded entries: the server's, changed by unconfirmed writes."""
        if not self._accepting:
            raise self._closed()
        data = self._mirror.read(namespace)
        for write in self._mirror.unconfirmed(namespace):
            overlay(data, write)
        return data

    def contents(self) -> dict[str, dict[str, bytes]]:
        """Return all encoded entries that the server has, as far as it was followed."""
        if not self._accepting:
            raise self._closed()
        return self._mirror.copy()

    def write(
        self, namespace: str, entries: Mapping[str, bytes | None], *, cleared: bool = False
    ) -> Write:
        """Add changes to the next transaction; call `check()` first."""
        write = self._pending.get(namespace)
        if write is None:
            write = Write(namespace, self._loop)
            if not self._accepting:
                write.settle(self._closed(), self._lost)
                return write
            self._pending[namespace] = write
            self._made[write] = self._loop.time()
            self._mirror.began(write)
            self._wake.set()
        if cleared:
            write.cleared = write.whole = True
            write.entries.clear()
        elif len(entries) > 1:
            write.whole = True
        write.entries.update(entries)
        return write

    async def swap(self, namespace: Namespace, key: str, expected: object, value: Encoded) -> bool:
        """Set or delete an entry if it has the expected value; see `Namespace.compare_and_set`."""
        if not self.check():
            raise StorageError("compare_and_set is called on the event loop only")
        for write in [*self._mirror.unconfirmed(namespace.name)]:
            await write.settled()
        name, packed = namespace.name, None if value is None else value[1]
        fetch = functools.partial(self._backend.get, name, key)
        current = self._mirror.get(name, key)
        if not _has(current, expected):
            current = await self._persist(fetch)  # memory may be behind the server
        while _has(current, expected):
            revision = await self._persist(
                functools.partial(
                    self._backend.compare_and_set, name, key, current, packed, self._token()
                )
            )
            if revision is not None:
                await self._reach(revision)
                return True
            current = await self._persist(fetch)
        return False

    async def exchange(self, changes: list[Changes]) -> None:
        """Carry out changes to several namespaces in one transaction, after the writes so far."""
        await self.flush()
        token = self._token()
        revision = await self._persist(
            lambda: self._backend.write(changes, token), limit=self._patience
        )
        await self._reach(revision)

    async def _reach(self, revision: int) -> None:
        """Wait until memory shows a revision, at most for one call's time."""
        self._reaching += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CALL), self._moved:
                    await self._moved.wait_for(lambda: self._mirror.revision >= revision)
        finally:
            self._reaching -= 1

    async def refresh(self) -> None:
        """Load all entries from the server."""
        included: list[Write] = []

        async def load() -> Contents:
            # Before each try: a write that an earlier server has carried out, and lost, has a
            # revision that the present one may never reach.
            included[:] = self._mirror.acknowledged_so_far()
            return await self._backend.load()

        self._mirror.replace(await self._persist(load, limit=self._patience), included)
        async with self._moved:
            self._moved.notify_all()

    def _token(self) -> str:
        self._number += 1
        return f"{self._id}-{self._number}"

    async def _persist(
        self,
        call: Callable[[], Awaitable[_Answer]],
        *,
        limit: float = _CALL,
        deadline: float | None = None,
    ) -> _Answer:
        """Call the server until it answers, or the deadline has passed."""
        if deadline is None:
            deadline = self._loop.time() + self._patience
        delay = _FIRST
        while True:
            try:
                async with asyncio.timeout(limit):
                    return await call()
            except TimeoutError:
                error = Unreachable(f"{self._backend.location} did not answer within {limit:g} s")
            except Unreachable as gone:
                error = gone
            except StorageError:
                raise
            except Exception as unknown:
                what = f"{type(unknown).__name__}: {masked_text(str(unknown))}"
                raise StorageError(f"{self._backend.location} failed: {what}") from unknown
            left = deadline - self._loop.time()
            if left <= 0:
                raise StorageError(
                    f"the storage's server was not reached for {self._patience:g} s: {error}",
                    remedy="Check that the server runs and that the URL in `storage` is right",
                ) from error
            await asyncio.sleep(min(delay, left))
            delay = min(2 * delay, _LAST)

    # Writing. One transaction is under way at a time, so that writes keep their order.

    async def _write_all(self) -> None:
        while True:
            while not self._pending:
                self._wake.clear()
                await self._wake.wait()
            self._batch, size = [], 0
            for name in [*self._pending]:
                write = self._pending.pop(name)
                self._batch.append(write)
                size += sum(len(value) for value in write.entries.values() if value is not None)
                if size > _FULL:
                    break
            await self._send(self._batch)
            self._batch = []

    async def _send(self, batch: list[Write]) -> None:
        token = self._token()
        deadline = min(self._made[write] for write in batch) + self._patience
        try:
            revision = await self._persist(
                lambda: self._backend.write(batch, token), deadline=deadline
            )
        except StorageError as error:
            if len(batch) > 1 and not isinstance(error.__cause__, Unreachable):
                # One namespace's failure must not fail the others: try each alone.
                for write in batch:
                    await self._send([write])
                return
            for write in batch:
                del self._made[write]
                self._fail(write, StorageError(str(error), plugin=write.namespace))
            self._mirror.confirm(batch)
            return
        self._last_reported = None
        for write in batch:
            del self._made[write]
            self._mirror.acknowledged(write, revision)
            write.settle()

    def _unwritten(self) -> list[Write]:
        return [*(one for one in self._batch if not one.done), *self._pending.values()]

    # Following.

    async def _follow(self) -> None:
        delay = _FIRST
        while True:
            changes = self._backend.follow(self._mirror.revision)
            try:
                while True:
                    async with asyncio.timeout(_SILENCE):
                        records = await anext(changes)
                    delay = _FIRST
                    self.current = True
                    if records:
                        self._mirror.take(records)
                        async with self._moved:
                            self._moved.notify_all()
                        if not self._reaching:
                            # This process's own writes come back too: taking them one by one
                            # would halve the rate of writes that follow one another.
                            await asyncio.sleep(_PAUSE)
            except Exception as error:
                if not isinstance(error, Lagged):
                    self.current = False
                    why = masked_text(str(error)) or type(error).__name__
                    self._lost(StorageError(f"{self._backend.location} is not followed: {why}"))
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, _LAST)
            finally:
                close = getattr(changes, "aclose", None)
                if close is not None:
                    await close()
            with contextlib.suppress(StorageError):  # the next round reports it
                await self.refresh()

    # Expiry. Every process removes what has expired; the server lets one of them do it.

    def _note(self, namespace: str, key: str, value: bytes) -> None:
        until = expiry_of(value)
        if until is not None:
            self.expire(namespace, key, until)

    def _expired(self, namespace: str, key: str) -> None:
        found = self._namespaces.get(namespace)
        if found is not None:
            found.drop_expired(key)
        value = self._mirror.get(namespace, key)
        until = None if value is None else expiry_of(value)
        if not self._accepting or until is None or until > time.time():
            return
        task = self._loop.create_task(self._remove(namespace, key, value), name="veko expiry")
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _remove(self, namespace: str, key: str, value: bytes | None) -> None:
        try:
            token = self._token()
            async with asyncio.timeout(_CALL):
                await self._backend.compare_and_set(namespace, key, value, None, token)
        except (StorageError, TimeoutError):
            self.expire(namespace, key, time.time() + _LAST)

    # Closing.

    async def close(self) -> None:
        """Finish pending writes within `close_timeout`, and close; a second call does nothing."""
        if not self._accepting or self._closed_once:
            return
        self._closed_once = True
        self._accepting = False
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._close_timeout):
                    await self.flush()
        finally:
            for task in (*self._tasks, *self._removals):
                task.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RELEASE):
                    await asyncio.gather(*self._tasks, *self._removals, return_exceptions=True)
            for write in self._unwritten():
                lost = f"the write had not finished {self._close_timeout:g} s after closing began"
                write.settle(StorageError(lost, plugin=write.namespace), self._lost)
            self._pending.clear()
            self._end()
            await self._release()

    async def _release(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RELEASE):
                await self._backend.close()


def _has(current: bytes | None, expected: object) -> bool:
    value: object = ABSENT
    if current is not None:
        value = unpack(Packed(current))
        if isinstance(value, Expiring):
            value = value.value if value.until > time.time() else ABSENT
    return matches(value, expected)

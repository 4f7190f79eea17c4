"""The storage engine: one SQLite file, reads from memory, one transaction per loop turn for writes.

Reads come from memory, where a namespace is loaded at its first use. Writes change memory at once;
all writes of one turn of the event loop go to disk as one transaction at its end, and the handle of
each is done when that has committed. A thread copies the log (WAL) into the database, so that no
write waits for the disk.

Cost: a write of small data 1 us, plus 20 us a turn that writes, plus 3 to 8 us an entry in SQLite;
a read 0.1 us for a scalar, 0.5 us for a small mapping, which is decoded each time so that changing
it does not change the storage. All data of the namespaces in use is in memory. A namespace's first
use blocks the loop for about 1 us an entry.

Promise: an awaited write survives `kill -9` of the process at any moment, and `update` is complete
or has no effect. A power cut may lose the last seconds but never damages the file; with
`durability="power"` it loses no awaited write (commits then wait for the disk, in a thread, and
each has all that was written meanwhile). If a write fails (disk full, file locked for
`busy_timeout`), its handle raises and memory is read again from disk. A file has one engine: a
second one is refused. Changes that other programs make to the file are not noticed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal, TypeVar

from veko.errors import StorageError

from .base import BaseEngine
from .checkpoints import Checkpoints
from .database import MEMORY, Database, is_busy
from .namespace import ABSENT, Encoded, Namespace, matches, overlay
from .write import Write

__all__ = ["Durability", "Engine"]

Durability = Literal["process", "power"]
_Answer = TypeVar("_Answer")

# Seconds that closing finally waits for the thread, which may be stuck in a commit.
_RELEASE: Final = 1.0


class Engine(BaseEngine):
    """A storage file on one asyncio event loop, open inside its `async with`.

    Args:
        path: The file, or `":memory:"`; created, with its folders, if it does not exist.
        durability: What an awaited write survives: `"process"`, the death of the process;
            `"power"`, a power cut too.
        busy_timeout: Seconds during which a write is retried while another program (the SQLite
            shell, a backup) holds the file.
        close_timeout: Seconds that `close()` waits for pending writes.
        report: Called with the error of a failed write that nobody awaited; by default it is
            logged.

    Attributes:
        path: The file, absolute; `None` if in memory.
        durability: As given; `"process"` in memory.
        surround: Called before each write, which it may take over; see `queries`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        durability: Durability = "process",
        busy_timeout: float = 5.0,
        close_timeout: float = 10.0,
        report: Callable[[StorageError], object] | None = None,
    ) -> None:
        super().__init__(report)
        self.path = None if str(path) == MEMORY else Path(path).absolute()
        self.durability: Durability = durability if self.path else "process"
        self._busy_timeout = busy_timeout
        self._close_timeout = close_timeout
        self._database: Database | None = None
        self._closing: asyncio.Task[None] | None = None
        self._released: Future[None] | None = None
        self._pending: dict[str, Write] = {}
        self._batches: deque[list[Write]] = deque()
        self._idle = True
        self._retry: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event = asyncio.Event()
        self._held = False

    def __repr__(self) -> str:
        return f"<Engine {self.path or MEMORY} ({'open' if self._database else 'closed'})>"

    async def open(self) -> None:
        """Open the file, in a thread.

        Raises:
            StorageError: The file is damaged, is not a storage, is in use, or is not writable; or
                this engine was opened before.
        """
        self._begin()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="veko-storage")
        opening = self._thread.submit(Database, self.path, full=self.durability == "power")
        try:
            self._database = database = await asyncio.shield(asyncio.wrap_future(opening))
        finally:
            if self._database is None:
                self._thread.submit(_abandon, opening)
                self._thread.shutdown(wait=False)
        self._checkpoints = Checkpoints(database.checkpoint, self._thread, self._step)
        self._accepting = True

    def namespaces(self) -> list[str]:
        """Return the names that have entries on disk, sorted."""
        return self._guarded(lambda database: database.namespaces())

    # The methods below are for this package.

    async def threaded(
        self, work: Callable[[Database], _Answer], *, alone: bool = False
    ) -> _Answer:
        """Run a function in the storage's thread, to its end even if cancelled.

        In memory it runs on the loop.

        Args:
            work: The function; it gets the database.
            alone: Whether earlier writes come first, later ones wait, and all namespaces are read
                again afterwards.

        Raises:
            StorageError: The storage is closed, or SQLite failed.
        """
        if alone:
            await self.flush()
        database = self._database
        if database is None:
            raise self._closed()
        self._held = self._held or alone
        try:
            if self.path is None:
                return work(database)
            return await _to_completion(self._loop.run_in_executor(self._thread, work, database))
        except sqlite3.Error as error:
            raise self.explain(error) from error
        finally:
            if alone:
                self._held = False
                for namespace in self._namespaces.values():
                    namespace.forget()
                if not self._idle:
                    self._loop.call_soon(self._step)

    def read(self, namespace: str) -> dict[str, object]:
        """Return a namespace's encoded entries: those on disk, changed by the pending writes."""
        data = self._guarded(lambda database: database.read(namespace))
        for write in self._unwritten():
            if write.namespace == namespace:
                overlay(data, write)
        return data

    def write(
        self, namespace: str, entries: Mapping[str, bytes | None], *, cleared: bool = False
    ) -> Write:
        """Add changes to the transaction of this turn; call `check()` first."""
        write = self._pending.get(namespace)
        if write is None:
            write = Write(namespace, self._loop)
            if self._database is None:
                write.settle(self._closed(), self._lost)
                return write
            self._pending[namespace] = write
            if self._idle:
                self._idle = False
                self._loop.call_soon(self._step)
        if cleared:
            watched = namespace in self._watches
            keys = self.namespace(namespace).keys() if watched else ()
            write.cleared = True
            write.entries = dict.fromkeys(keys)
        write.entries.update(entries)
        return write

    async def swap(self, namespace: Namespace, key: str, expected: object, value: Encoded) -> bool:
        """Set or delete an entry if it has the expected value; see `Namespace.compare_and_set`."""
        if not self.check():
            raise StorageError("compare_and_set is called on the event loop only")
        if not matches(namespace.get(key, ABSENT), expected):
            return False
        await namespace.put(key, value)
        return True

    def _expired(self, namespace: str, key: str) -> None:
        found = self._namespaces.get(namespace)
        if self._accepting and found is not None and found.drop_expired(key):
            self.write(namespace, {key: None})

    # Writing to disk. `_idle` is False from the first write until no write is pending.

    def _step(self) -> None:
        if not self._batches:
            if not self._pending:
                self._become_idle()
                return
            self._batches.append(list(self._pending.values()))
            self._pending = {}
        if not self._held and not self._checkpoints.must_pause():
            self._attempt(self._loop.time() + self._busy_timeout, 0.001)

    def _attempt(self, deadline: float, delay: float) -> None:
        database = self._database
        if database is None or not self._batches or self._held:
            return  # closed, or held by `threaded(alone=True)`, which starts it again
        if self.durability == "power":
            work = self._loop.run_in_executor(self._thread, database.apply, self._batches[0])
            work.add_done_callback(lambda done: self._returned(done, deadline, delay))
            return
        try:
            pages = database.apply(self._batches[0])
        except Exception as error:
            self._landed(error, 0, deadline, delay)
        except BaseException:  # Ctrl+C: the transaction was rolled back and is tried again
            self._loop.call_soon(self._step)
            raise
        else:
            self._landed(None, pages, deadline, delay)

    def _returned(self, done: asyncio.Future[int], deadline: float, delay: float) -> None:
        if not done.cancelled():
            error = done.exception()
            self._landed(error, 0 if error else done.result(), deadline, delay)

    def _landed(
        self, error: BaseException | None, pages: int, deadline: float, delay: float
    ) -> None:
        if not self._batches:
            return  # close() gave up
        busy = isinstance(error, sqlite3.Error) and is_busy(error)
        if busy and self._loop.time() < deadline:
            longer = min(delay * 2, 0.05)
            self._retry = self._loop.call_later(delay, self._attempt, deadline, longer)
            return
        batch = self._batches.popleft()
        if error is None:
            self._last_reported = None
            for write in batch:
                write.settle()
                if write.namespace in self._watches:
                    self._watches.publish(write.namespace, write.entries)
            self._checkpoints.wrote(pages)
        elif len(batch) > 1 and not busy:
            # One namespace's failure must not fail the others: try each alone.
            self._batches.extendleft([write] for write in reversed(batch))
        else:
            for write in batch:
                self._fail(write, self.explain(error))
        if self._batches or self._pending:
            self._loop.call_soon(self._step)
        else:
            self._become_idle()

    def _become_idle(self) -> None:
        self._idle = True
        self._drained.set()

    def _unwritten(self) -> list[Write]:
        return [*(write for batch in self._batches for write in batch), *self._pending.values()]

    def explain(self, error: BaseException) -> StorageError:
        """Return the `StorageError` for an error of SQLite's."""
        if self._database is None:
            explained = StorageError(str(error), path=self.path)
        else:
            explained = self._database.error(error)
        # The traceback's frames hold the `Write`: it would not be dropped, and so not reported
        # (test_storage_faults.py).
        explained.__cause__ = error.with_traceback(None)
        return explained

    def _guarded(self, read: Callable[[Database], _Answer]) -> _Answer:
        if self._database is None:
            raise self._closed()
        try:
            return read(self._database)
        except sqlite3.Error as error:
            raise self.explain(error) from error

    async def close(self) -> None:
        """Finish pending writes within `close_timeout`, and close; a second call does nothing."""
        if not self._thread_id:
            return
        if self._closing is None:
            self._accepting = False
            self._closing = self._loop.create_task(self._close(), name="veko storage close")
            self._closing.add_done_callback(self._ended)
        await asyncio.shield(self._closing)
        if self._released is not None:
            await asyncio.wait({asyncio.wrap_future(self._released)}, timeout=_RELEASE)

    async def _close(self) -> None:
        if self._database is None:
            return
        try:
            async with asyncio.timeout(self._close_timeout):
                while not self._idle:
                    self._drained.clear()
                    await self._drained.wait()
                await self._loop.run_in_executor(self._thread, self._database.finish)
        except TimeoutError:
            pass

    def _ended(self, closing: asyncio.Task[None]) -> None:
        database, self._database = self._database, None
        if database is None:
            return
        if closing.cancelled() and self.durability == "process":
            self._write_now(database)  # the loop is closing: nothing runs later
        for write in self._unwritten():
            lost = f"the write had not finished {self._close_timeout:g} s after closing began"
            write.settle(StorageError(lost, plugin=write.namespace, path=self.path), self._lost)
        self._forget()
        self._end()
        # In the thread, after what it runs now, so that no connection is closed while in use.
        self._released = self._thread.submit(database.close)
        self._thread.shutdown(wait=False)

    def _write_now(self, database: Database) -> None:
        unwritten = self._unwritten()
        try:
            database.apply(unwritten)
        except sqlite3.Error:
            return  # each write reports it
        self._forget()
        for write in unwritten:
            write.settle()

    def _forget(self) -> None:
        self._batches.clear()
        self._pending.clear()
        self._idle = True
        if self._retry is not None:
            self._retry.cancel()


async def _to_completion(running: asyncio.Future[_Answer]) -> _Answer:
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _abandon(opening: Future[Database]) -> None:
    if opening.exception() is None:
        opening.result().close()

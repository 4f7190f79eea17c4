"""The plugin's storage, mirrored: reads from the worker's memory, writes by the host.

It is an engine under the real `Namespace`, so the plugin sees one interface in and out of process.
All writes of one turn of the loop cross together, as one transaction of the host's storage, and the
handle of each is done when that is durable.

Promise: a write that the host refuses is undone in memory, and its handle raises.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from veko.errors import StorageError

from ...storage import Encoded, Namespace, Packed, Surround, Watch
from .kinds import Stored

__all__ = ["StoredMirror"]

_log: Final = logging.getLogger("veko.storage")
_T = TypeVar("_T")
_ABSENT: Final[Any] = object()
_Send = Callable[[dict[str, Stored], list[str], bool], Coroutine[Any, Any, object]]


class _Write:
    """The writes of one turn, and the handle of each of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.changes: dict[str, Stored] = {}
        self.deleted: dict[str, None] = {}
        self.cleared = False
        self.before: dict[str, object] = {}
        self.done: asyncio.Future[None] = loop.create_future()

    def __await__(self) -> Generator[Any, Any, None]:
        return asyncio.shield(self.done).__await__()


class StoredMirror:
    """The engine of the one namespace that a worker has.

    Args:
        name: The plugin's name.
        entries: What is stored.
        send: Sends changes, deleted keys and whether all was cleared before, and returns when they
            are durable.
    """

    surround: Surround | None = None

    def __init__(self, name: str, entries: Mapping[str, object], send: _Send) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._data = {key: Packed(Stored(key, value).packed) for key, value in entries.items()}
        self._send = send
        self._batch: _Write | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self.namespace = Namespace(name, self)

    def read(self, namespace: str) -> dict[str, object]:
        """Return all entries."""
        return dict(self._data)

    def check(self) -> bool:
        """Return whether this is the loop's thread."""
        return threading.get_ident() == self._thread

    def on_loop(self, work: Callable[[], _T]) -> _T:
        """Return what a function returns on the loop.

        Raises:
            StorageError: The loop has ended.
        """
        if self.check():
            return work()
        answer: Future[_T] = Future()

        def run() -> None:
            try:
                answer.set_result(work())
            except BaseException as error:
                answer.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError as error:
            raise StorageError("the storage is closed", remedy="The plugin has ended") from error
        return answer.result()

    def write(
        self, namespace: str, entries: Mapping[str, bytes | None], *, cleared: bool = False
    ) -> Awaitable[None]:
        """Add changes to what this turn of the loop sends."""
        batch = self._batch
        if batch is None:
            batch = self._batch = _Write(self._loop)
            self._loop.call_soon(self._start)
        if cleared:
            for key, held in self._data.items():
                batch.before.setdefault(key, held)
            self._data.clear()
            batch.changes.clear()
            batch.deleted.clear()
            batch.cleared = True
        for key, value in entries.items():
            batch.before.setdefault(key, self._data.get(key, _ABSENT))
            if value is None:
                self._data.pop(key, None)
                batch.changes.pop(key, None)
                batch.deleted[key] = None
            else:
                self._data[key] = packed = Packed(value)
                batch.deleted.pop(key, None)
                batch.changes[key] = Stored(key, packed)
        return batch

    def _start(self) -> None:
        batch, self._batch = self._batch, None
        if batch is not None:
            task = self._loop.create_task(self._carry(batch))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _carry(self, batch: _Write) -> None:
        try:
            await self._send(batch.changes, list(batch.deleted), batch.cleared)
        except Exception as error:
            self._undo(batch)
            batch.done.set_exception(error)
            batch.done.exception()  # known; a plugin that awaits a handle gets it
            _log.error("a write failed: %s", error)
        except BaseException:
            batch.done.cancel()
            raise
        else:
            batch.done.set_result(None)

    def _undo(self, batch: _Write) -> None:
        for key, held in batch.before.items():
            written = batch.changes.get(key)
            now = self._data.get(key)
            if (None if now is None else bytes(now)) != (written and bytes(written.packed)):
                continue  # a later write has replaced it
            if held is _ABSENT:
                self._data.pop(key, None)
            else:
                self._data[key] = held  # type: ignore[assignment]
        self.namespace.forget()

    async def swap(self, namespace: Namespace, key: str, expected: object, value: Encoded) -> bool:
        """Refuse: a worker has no atomic writes."""
        raise _not_here("compare_and_set")

    def watch(self, namespace: str, prefix: str) -> Watch:
        """Refuse: changes are not reported to a worker one by one."""
        raise _not_here("watch")

    def expire(self, namespace: str, key: str, until: float) -> None:
        """Leave it to the host, whose storage removes the entry; reading checks the moment."""

    async def flush(self) -> None:
        """Wait until every write so far has been carried out or has failed."""
        self._start()
        while self._sending:
            await asyncio.wait(list(self._sending))

    def changed(self, changes: Mapping[str, object], deleted: list[str]) -> None:
        """Take over what was changed at the host."""
        for key in deleted:
            self._data.pop(key, None)
        for key, value in changes.items():
            self._data[key] = Packed(Stored(key, value).packed)
        self.namespace.forget()


def _not_here(verb: str) -> StorageError:
    return StorageError(
        f"storage.{verb} does not work in a plugin that runs in a process of its own",
        remedy="Let a plugin in the application's process do it, and call it as a service",
    )

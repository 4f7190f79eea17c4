"""What all engines have in common: namespaces, threads, watches, expiry, lost failures."""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Final, Self, TypeVar

from veko.errors import StorageError

from .._lib.database_events import DataSource
from .changes import Watch, Watches
from .codec import check_key
from .expiry import Expiry
from .namespace import Encoded, Namespace, Surround
from .write import Write

__all__ = ["BaseEngine"]

_Answer = TypeVar("_Answer")

# Seconds between two looks of a waiting thread at whether the loop has ended.
_LOOP_ENDED: Final = 1.0


class BaseEngine(DataSource):
    """A storage on one asyncio event loop, open inside its `async with`.

    Attributes:
        path: The file, absolute; `None` if there is none.
        shared: Whether other processes may change it too.
        current: Whether memory shows what they do: not while the server is gone.
        surround: Called before each write, which it may take over; see `queries`.
    """

    path: Path | None = None
    shared: bool = False
    current: bool = True
    _loop: asyncio.AbstractEventLoop
    _expiry: Expiry

    def __init__(self, report: Callable[[StorageError], object] | None) -> None:
        self.surround: Surround | None = None
        self._report = report or _log
        self._namespaces: dict[str, Namespace] = {}
        self._watches = Watches()
        self._last_reported: str | None = None
        self._thread_id = 0
        self._accepting = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def open(self) -> None:
        """Open the storage.

        Raises:
            StorageError: It cannot be opened, or this engine was opened before.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish pending writes in bounded time, and close; a second call does nothing."""

    @abstractmethod
    def namespaces(self) -> list[str]:
        """Return the names that have entries, sorted.

        Raises:
            StorageError: The storage is closed.
        """

    @abstractmethod
    def read(self, namespace: str) -> dict[str, object]:
        """Return a namespace's encoded entries, changed by the pending writes."""

    @abstractmethod
    def write(
        self, namespace: str, entries: Mapping[str, bytes | None], *, cleared: bool = False
    ) -> Write:
        """Add changes to the next transaction; call `check()` first."""

    @abstractmethod
    async def swap(self, namespace: Namespace, key: str, expected: object, value: Encoded) -> bool:
        """Set or delete an entry if it has the expected value; see `Namespace.compare_and_set`."""

    @abstractmethod
    def _unwritten(self) -> list[Write]:
        """Return the writes that are not durable yet, in order."""

    @abstractmethod
    def _expired(self, namespace: str, key: str) -> None:
        """Remove an entry, unless it was set again."""

    def namespace(self, name: str) -> Namespace:
        """Return the entries of one plugin; the same object for the same name.

        Raises:
            StorageError: The name is not a `str` of 1 to 512 characters.
        """
        found = self._namespaces.get(name)
        if found is None:
            check_key(name)
            found = self._namespaces[name] = Namespace(name, self)
        return found

    # The methods below are for this package.

    async def flush(self) -> None:
        """Wait until every write so far is durable or has failed."""
        for write in self._unwritten():
            await write.settled()

    def watch(self, namespace: str, prefix: str) -> Watch:
        """Return a watch; see `Namespace.watch`."""
        self.check()
        return self._watches.open(namespace, prefix)

    def expire(self, namespace: str, key: str, until: float) -> None:
        """Let an entry be removed when its moment has come."""
        self._expiry.add(namespace, key, until)

    def check(self) -> bool:
        """Return whether this is the event loop's thread, where writes are made.

        Raises:
            StorageError: The storage is closed.
        """
        if not self._accepting:
            raise self._closed()
        return threading.get_ident() == self._thread_id

    def on_loop(self, work: Callable[[], _Answer]) -> _Answer:
        """Call a function on the loop's thread, which may be this one, and return its result.

        Raises:
            StorageError: The loop has ended.
        """
        if threading.get_ident() == self._thread_id or not self._accepting:
            return work()
        answer: Future[_Answer] = Future()

        def run() -> None:
            try:
                answer.set_result(work())
            except BaseException as error:
                answer.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(run)
        except RuntimeError:
            raise self._closed() from None
        # A loop that ends drops what was to be called: the thread would wait forever.
        while not wait((answer,), _LOOP_ENDED).done:
            if self._loop.is_closed():
                raise self._closed()
        return answer.result()

    def _begin(self) -> None:
        """Belong to this loop and thread, once."""
        if self._thread_id:
            raise StorageError("this engine was opened before", remedy="Create a new one")
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._expiry = Expiry(self._loop, self._expired)

    def _end(self) -> None:
        """Forget all entries, and end what looks at them."""
        self._expiry.close()
        self._watches.close()
        for namespace in self._namespaces.values():
            namespace.forget()

    def _fail(self, write: Write, error: StorageError) -> None:
        error.plugin = write.namespace
        found = self._namespaces.get(write.namespace)
        if found is not None:
            found.forget()
        write.settle(error, self._lost)

    def _lost(self, error: StorageError) -> None:
        # A full disk fails every write: report it once until a write succeeds again.
        text = str(error)
        if text != self._last_reported:
            self._last_reported = text
            if threading.get_ident() == self._thread_id:
                self._report(error)
                return
            try:  # another thread dropped the last reference to the handle
                self._loop.call_soon_threadsafe(self._report, error)
            except RuntimeError:
                _log(error)

    def _closed(self) -> StorageError:
        return StorageError(
            "the storage is closed",
            path=self.path,
            remedy="Use it while the manager runs: from load() until unload() has returned",
        )


def _log(error: StorageError) -> None:
    logging.getLogger("veko.storage").error("a write failed: %s", error)

"""What one namespace writes in one turn of the event loop, and the wait for it.

All writes of a namespace in one turn share one `Write`: they are committed together or fail
together. A failure that nobody hears of is passed on when the last reference to the handle goes,
so it is never lost, and never told twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator

from veko.errors import StorageError

__all__ = ["Write"]


class _Alarm:
    """Exists only for a failed write: dropping it unheard tells somebody."""

    __slots__ = ("error", "tell")

    def __init__(self, error: StorageError, tell: Callable[[StorageError], object]) -> None:
        self.error = error
        self.tell: Callable[[StorageError], object] | None = tell

    def __del__(self) -> None:
        if self.tell is not None:
            self.tell(self.error)


class Write:
    """Awaitable: done when the transaction committed; it may as well be ignored.

    Cancelling who waits does not take the write back.

    Attributes:
        namespace: Whose entries these are.
        cleared: Whether the namespace is emptied first.
        entries: Encoded values by key; `None` deletes the key.
        error: Why it failed, once it did.
    """

    __slots__ = ("_alarm", "_loop", "_waiters", "cleared", "done", "entries", "error", "namespace")

    def __init__(self, namespace: str, loop: asyncio.AbstractEventLoop) -> None:
        self.namespace = namespace
        self.cleared = False
        self.entries: dict[str, bytes | None] = {}
        self.done = False
        self.error: StorageError | None = None
        self._loop = loop
        self._waiters: list[asyncio.Future[None]] = []
        self._alarm: _Alarm | None = None

    def __repr__(self) -> str:
        state = "failed" if self.error else "committed" if self.done else "pending"
        return f"<Write of {len(self.entries)} entries in {self.namespace!r}: {state}>"

    def __await__(self) -> Generator[object, None, None]:
        if not self.done:
            # As a rule it is committed in a turn of the loop; a future would cost twice that.
            yield None
        if not self.done:
            # A future each: cancelling one who waits must not cancel the others.
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            yield from waiter
        if self.error is not None:
            if self._alarm is not None:
                self._alarm.tell = None
            raise self.error

    async def settled(self) -> None:
        """Wait until it is over, however it ended; who wrote it is still told of a failure."""
        if not self.done:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def settle(
        self,
        error: StorageError | None = None,
        tell: Callable[[StorageError], object] | None = None,
    ) -> None:
        """Say how it ended.

        Args:
            error: Why it failed; `None` if it committed.
            tell: Called with the error if nobody ever awaits this.
        """
        self.done = True
        self.error = error
        if error is not None and tell is not None:
            self._alarm = _Alarm(error, tell)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

"""What one namespace writes in one turn of the event loop, as an awaitable handle.

All writes of a namespace in one turn share one `Write`: they are committed together or fail
together. A failure that nobody awaited is reported when the last reference to the handle goes, so
every failure is reported exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator

from veko.errors import StorageError

__all__ = ["Write"]


class _Alarm:
    """Belongs to a failed write; reports its error if it is dropped before it was disarmed."""

    __slots__ = ("error", "report")

    def __init__(self, error: StorageError, report: Callable[[StorageError], object]) -> None:
        self.error = error
        self.report: Callable[[StorageError], object] | None = report

    def __del__(self) -> None:
        if self.report is not None:
            self.report(self.error)


class Write:
    """A write that may be awaited until its transaction has committed, or be ignored.

    Cancelling a waiter does not cancel the write.

    Args:
        namespace: The namespace that it writes to.
        loop: The engine's event loop.

    Attributes:
        namespace: The namespace that it writes to.
        cleared: Whether the namespace is emptied first.
        whole: Whether several entries were changed together; see `Changes`.
        entries: Encoded values by key; `None` deletes the key.
        done: Whether it has committed or failed.
        error: The error, if it failed.
    """

    __slots__ = (
        "_alarm", "_loop", "_waiters", "cleared", "done", "entries", "error", "namespace", "whole",
    )  # fmt: skip

    def __init__(self, namespace: str, loop: asyncio.AbstractEventLoop) -> None:
        self.namespace = namespace
        self.cleared = False
        self.whole = False
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
            # Most writes commit within one turn of the loop; a future would cost twice as much.
            yield None
        if not self.done:
            # A future for each waiter: cancelling one must not cancel the others.
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            yield from waiter
        if self.error is not None:
            if self._alarm is not None:
                self._alarm.report = None
            raise self.error

    async def settled(self) -> None:
        """Wait until it has committed or failed; a failure still reaches its author."""
        if not self.done:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def settle(
        self,
        error: StorageError | None = None,
        report: Callable[[StorageError], object] | None = None,
    ) -> None:
        """Mark it as committed or failed, and wake the waiters.

        Args:
            error: Why it failed; `None` if it committed.
            report: Called with the error if nobody ever awaits the write.
        """
        self.done = True
        self.error = error
        if error is not None and report is not None:
            self._alarm = _Alarm(error, report)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

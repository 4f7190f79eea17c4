"""Liveness: whether a worker that owes an answer still answers at all.

While calls are out, or bytes wait to be read, and nothing was heard for a while, the worker is
pinged. Its reader answers a ping whatever else it does, so one that does not is blocked: an endless
loop, a call that blocks its event loop, a stopped process.

Cost: a timer four times in the time limit while calls are out, and nothing while none are.
Promise: time in which the host's own loop was blocked does not count against the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from .protocol import Connection

__all__ = ["UNANSWERED", "Liveness"]

UNANSWERED: Final = 2.0
"""Seconds after which a worker that does not answer a ping is blocked."""
_PARTS: Final = 4


class Liveness:
    """Sees to it that a worker answers.

    Args:
        connection: The connection to it.
        blocked: Is called with the reason when it is blocked: once, and nothing after that.
        seconds: How long a ping may stay unanswered.
    """

    def __init__(
        self,
        connection: Connection,
        blocked: Callable[[str], None],
        *,
        seconds: float = UNANSWERED,
    ) -> None:
        self._connection = connection
        self._blocked = blocked
        self._seconds = seconds
        self._wait = seconds / _PARTS
        self._patient = 0
        self._silent = 0  # parts of the time limit since the last ping; 0 if none is out
        self._timer: asyncio.TimerHandle | None = None
        connection.watched = False
        connection.watch = self._start

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Let the worker be blocked as long as it likes: while it imports its plugin."""
        self._patient += 1
        try:
            yield
        finally:
            self._patient -= 1
            self._silent = 0

    def stop(self) -> None:
        """Stop for good; may be called twice."""
        self._connection.watch = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        self._connection.watched = True
        self._connection.heard()
        self._silent = 0
        self._schedule()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._wait
        self._timer = loop.call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        connection = self._connection
        self._timer = None
        if connection.closed:
            return
        if not connection.calls and not connection.unread:
            connection.watched = False
            return
        late = asyncio.get_running_loop().time() - due
        if connection.heard() or self._patient:
            self._silent = 0
        elif self._silent == 0:
            self._silent = 1
            connection.poke()
        elif late < self._wait:  # else our own loop was blocked: an answer may wait behind this
            self._silent += 1
        if self._silent > _PARTS:
            self.stop()
            self._blocked(f"blocked: no answer to a ping for {self._seconds:.1f} s")
            return
        self._schedule()

"""Pings: whether the other side still answers at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from .errors import ConnectionLost, Violation
from .framing import frame

__all__ = ["Pings"]


class Pings:
    """Numbers pings and waits for their answers.

    Args:
        write: Writes a frame.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._next = 1

    def send(self) -> int:
        """Send a ping; return its number."""
        number, self._next = self._next, self._next + 1
        self._write(frame(b'["ping",%d]' % number))
        return number

    async def wait(self, timeout: float) -> float:
        """Send a ping; return the seconds until it was answered.

        Raises:
            TimeoutError: It was not answered in time.
            ConnectionLost: The other side is gone.
        """
        start = time.perf_counter()
        number = self.send()
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await answer
        finally:
            del self._waiting[number]
        return time.perf_counter() - start

    def answered(self, number: int) -> None:
        """Take an answer.

        Raises:
            Violation: No such ping was sent.
        """
        if not 1 <= number < self._next:
            raise Violation(f"answered the ping {number}, which was not sent")
        answer = self._waiting.get(number)
        if answer is not None and not answer.done():
            answer.set_result(None)

    def end(self, reason: Callable[[], ConnectionLost]) -> None:
        """Let what waits fail."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(reason())

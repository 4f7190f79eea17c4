"""Memory: a worker whose processes take too much of it is ended.

The resident size is looked at four times a second: a limit on the address space would stop what
reserves much and uses little, such as V8 and numpy.

Cost: a few reads of `/proc` for each process of the worker, four times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["MOST", "MemoryLimit"]

MOST: Final = 512 * 2**20
"""Bytes that the processes of a confined plugin may use together."""
_WAIT: Final = 0.25
_MIB: Final = 2**20


class _Sized(Protocol):
    def resident(self) -> int:
        """Return the bytes that are used now."""
        ...


class MemoryLimit:
    """Looks at the memory of a worker until `stop` is called.

    Args:
        process: The worker's process.
        exceeded: Is called once with the reason when it uses too much, and nothing after that.
        most: The most bytes that it may use.
        seconds: How often it is looked at.
    """

    def __init__(
        self,
        process: _Sized,
        exceeded: Callable[[str], None],
        *,
        most: int = MOST,
        seconds: float = _WAIT,
    ) -> None:
        self._process = process
        self._exceeded = exceeded
        self._most = most
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(seconds, self._look)

    def stop(self) -> None:
        """Stop for good; may be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        used = self._process.resident()
        if used > self._most:
            self._timer = None
            self._exceeded(
                f"used {used // _MIB} MiB of memory, at most {self._most // _MIB} MiB are allowed"
            )
            return
        self._timer = self._loop.call_later(self._seconds, self._look)

"""Turns: one operation on a file or folder at a time; one that lasts gives way to the next.

A `load()` that hangs would otherwise keep the version that mends it waiting for its time limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio

__all__ = ["PATIENCE", "Turns"]

PATIENCE: Final = 1.0
"""Seconds that an operation has once another one waits."""


class _Turn:
    """Who is at work on a place, and how many want to be."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.scope: anyio.CancelScope | None = None
        self.wanted = 0


class Turns:
    """The operations on places."""

    def __init__(self) -> None:
        self._turns: dict[Path, _Turn] = {}

    @asynccontextmanager
    async def alone(self, place: Path) -> AsyncIterator[None]:
        """Be alone on a place; what is done inside is cancelled if it lasts and another comes."""
        turn = self._turns.setdefault(place, _Turn())
        turn.wanted += 1
        try:
            with anyio.move_on_after(PATIENCE) as patience:
                await turn.lock.acquire()
            if patience.cancelled_caught:
                if turn.scope is not None:
                    turn.scope.cancel()
                await turn.lock.acquire()
            try:
                with anyio.CancelScope() as turn.scope:
                    yield
            finally:
                turn.scope = None
                turn.lock.release()
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[place]

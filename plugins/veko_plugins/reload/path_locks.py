"""A lock for each path, whose holder is cancelled if it keeps others waiting.

Otherwise a `load()` that hangs would keep the version that fixes it waiting until its time limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio

__all__ = ["PATIENCE", "PathLocks"]

PATIENCE: Final = 1.0
"""Seconds that the holder of a lock has once somebody else waits for it."""


class _Lock:
    """The lock of one path, the scope of its holder, and how many hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.holder: anyio.CancelScope | None = None
        self.users = 0


class PathLocks:
    """The locks of plugin files and folders; one exists while somebody holds it or waits."""

    def __init__(self) -> None:
        self._locks: dict[Path, _Lock] = {}

    @asynccontextmanager
    async def hold(self, path: Path) -> AsyncIterator[None]:
        """Hold the lock of a path.

        The body is cancelled, without an error, when another one has waited for `PATIENCE` seconds.
        """
        lock = self._locks.setdefault(path, _Lock())
        lock.users += 1
        try:
            with anyio.move_on_after(PATIENCE) as patience:
                await lock.lock.acquire()
            if patience.cancelled_caught:
                if lock.holder is not None:
                    lock.holder.cancel()
                await lock.lock.acquire()
            try:
                with anyio.CancelScope() as lock.holder:
                    yield
            finally:
                lock.holder = None
                lock.lock.release()
        finally:
            lock.users -= 1
            if not lock.users:
                del self._locks[path]

"""Copies the log into the database, in a thread, often enough that the log stays small.

A passive checkpoint never blocks a writer, but a writer that never pauses keeps it from reaching
the log's end, and only then does SQLite restart the log. So past `HARD` pages the writer must pause
until a checkpoint has run alone. After that, only a reader in another program can let the log grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

__all__ = ["Checkpoints"]

# Pages of 4 KiB written: at 16 MiB a checkpoint starts, at 64 MiB writes pause.
SOFT: Final = 4_096
HARD: Final = 16_384


class Checkpoints:
    """Runs `checkpoint` as the log grows.

    Args:
        checkpoint: Copies what it can; returns the number of pages in the log when it began.
        thread: The executor that runs it.
        resume: Called when a paused writer may continue.
    """

    def __init__(
        self,
        checkpoint: Callable[[], int],
        thread: Executor,
        resume: Callable[[], None],
    ) -> None:
        self._checkpoint = checkpoint
        self._thread = thread
        self._resume = resume
        self._loop = asyncio.get_running_loop()
        self._dirty = 0
        self._running = False
        self._alone = False
        self._paused = False

    def wrote(self, pages: int) -> None:
        """Count pages written to the log, and start a checkpoint if one is due."""
        self._dirty += pages
        if self._dirty >= SOFT and not self._running:
            self._start(alone=False)

    def must_pause(self) -> bool:
        """Return whether the writer has to wait until `resume` is called."""
        self._paused = self._running and (self._alone or self._dirty >= HARD)
        return self._paused

    def _start(self, *, alone: bool) -> None:
        self._running, self._alone = True, alone
        before = self._dirty
        work = self._loop.run_in_executor(self._thread, self._checkpoint)
        work.add_done_callback(lambda done: self._ended(done, before))

    def _ended(self, done: asyncio.Future[int], before: int) -> None:
        self._running = False
        failed = done.cancelled() or done.exception() is not None
        length = 0 if failed else done.result()
        # After a failure, or a run alone that could not copy all, the next one is due as usual.
        self._dirty = max(0, self._dirty - before)
        if not self._alone and not failed and (self._paused or length >= HARD):
            self._start(alone=True)
        elif self._paused:
            self._paused = False
            self._resume()

"""When the log is copied into the database: in a thread, often enough that the log stays small.

A passive checkpoint never hinders a writer, but a writer that never rests keeps it from reaching
the log's end, and only then does SQLite begin the log anew. So past `HARD` pages the writer is told
to rest until a checkpoint has run alone. Only a reader in another program can then let it grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

__all__ = ["Checkpoints"]

# Pages of 4 KiB written: 16 MiB, at which a checkpoint starts, and 64 MiB, at which writes rest.
SOFT: Final = 4_096
HARD: Final = 16_384


class Checkpoints:
    """Runs `checkpoint` as the log grows.

    Args:
        checkpoint: Copies what it can; returns how many pages the log had when it began.
        thread: Where it runs.
        resume: Called when the writer that had to rest may go on.
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
        self._resting = False

    def wrote(self, pages: int) -> None:
        """Count what went into the log, and start a checkpoint if it is time."""
        self._dirty += pages
        if self._dirty >= SOFT and not self._running:
            self._start(alone=False)

    def must_rest(self) -> bool:
        """Whether the writer has to wait until `resume` is called."""
        self._resting = self._running and (self._alone or self._dirty >= HARD)
        return self._resting

    def _start(self, *, alone: bool) -> None:
        self._running, self._alone = True, alone
        before = self._dirty
        work = self._loop.run_in_executor(self._thread, self._checkpoint)
        work.add_done_callback(lambda done: self._ended(done, before))

    def _ended(self, done: asyncio.Future[int], before: int) -> None:
        self._running = False
        failed = done.cancelled() or done.exception() is not None
        length = 0 if failed else done.result()
        # What failed, or could not be copied by a run alone, is due again after as many pages.
        self._dirty = max(0, self._dirty - before)
        if not self._alone and not failed and (self._resting or length >= HARD):
            self._start(alone=True)
        elif self._resting:
            self._resting = False
            self._resume()

"""The service `transfer`: all that a storage holds, out of it and into it, for backups.

See `snapshots` for what it costs and promises. A storage that takes the place of ours may provide
the same service.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread

from .engine import Engine
from .snapshots import Snapshot, Staged, temporary_of

__all__ = ["Transfers"]


class Transfers:
    """Snapshots of an engine, and exchanges.

    Args:
        engine: Whose entries these are.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """All namespaces as they are now, to be read in a thread while writing goes on.

        Raises:
            StorageError: It is closed, or cannot be read.
        """
        await self._engine.flush()
        taken = await self._engine.threaded(lambda database: database.snapshot())
        try:
            yield taken
        finally:
            taken.close()

    @asynccontextmanager
    async def staging(self) -> AsyncIterator[Staged]:
        """A place for what is to come in, to be filled in a thread.

        Raises:
            StorageError: There is no room for it beside the storage.
        """
        with contextlib.ExitStack() as stack:
            path = self._engine.path
            if path is None:
                path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "storage"
            try:
                staged = await anyio.to_thread.run_sync(Staged, temporary_of(path))
            except (sqlite3.Error, OSError) as error:
                raise self._engine.explain(error) from error
            try:
                yield staged
            except sqlite3.Error as error:  # the disk is full
                raise self._engine.explain(error) from error
            finally:
                await anyio.to_thread.run_sync(staged.remove)

    async def exchange(self, staged: Staged) -> None:
        """Put what is staged in the place of what its namespaces have, and the other way round.

        Writes wait meanwhile and go on top; what plugins read is read anew. Cancelling does not
        stop it.

        Raises:
            StorageError: Nothing has changed.
        """
        await self._engine.threaded(lambda base: base.exchange(staged.path), alone=True)

"""The service `transfer`: reads a whole storage and replaces its entries, for backups.

See `snapshots` for costs and promises. A storage that replaces this one may provide the same
service.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import msgspec

from .codec import expiry_of
from .engine import Engine
from .port import Changes
from .shared import SharedEngine
from .snapshots import Snapshot, Staged, temporary_of

__all__ = ["SharedTransfers", "Transfers"]


class Transfers:
    """Snapshots and exchanges of an engine's entries.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Yield all namespaces as they are now, to be read in a thread while writing continues.

        Raises:
            StorageError: The storage is closed or cannot be read.
        """
        await self._engine.flush()
        taken = await self._engine.threaded(lambda database: database.snapshot())
        try:
            yield taken
        finally:
            taken.close()

    @asynccontextmanager
    async def staging(self) -> AsyncIterator[Staged]:
        """Yield an empty `Staged`, to be filled in a thread and given to `exchange`.

        Raises:
            StorageError: Its file cannot be written beside the storage.
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
        """Exchange the entries of the staged namespaces for the staged ones.

        Writes wait meanwhile and apply afterwards; plugins then read the new entries. Cancelling
        does not stop it.

        Args:
            staged: The new entries; afterwards it has the former ones.

        Raises:
            StorageError: The exchange failed; nothing was changed.
        """
        await self._engine.threaded(lambda base: base.exchange(staged.path), alone=True)


class _Replacement(msgspec.Struct, frozen=True):
    """All entries of a namespace, exchanged for others."""

    namespace: str
    entries: Mapping[str, bytes | None]
    cleared: bool = True
    whole: bool = True


class _Copy:
    """What a shared storage has at one moment; see `Snapshot`."""

    value = staticmethod(Snapshot.value)

    def __init__(self, entries: dict[str, dict[str, bytes]]) -> None:
        self._entries = entries

    def rows(self) -> Iterator[tuple[str, str, bytes]]:
        """Iterate over namespace, key and encoded value of every entry that does not expire."""
        for namespace, entries in sorted(self._entries.items()):
            for key, value in sorted(entries.items()):
                if expiry_of(value) is None:
                    yield namespace, key, value


class SharedTransfers:
    """Snapshots and exchanges of a shared storage's entries; see `Transfers`.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: SharedEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[_Copy]:
        """Yield all namespaces as the server has them now.

        Raises:
            StorageError: The storage is closed or cannot be read.
        """
        await self._engine.flush()
        await self._engine.refresh()
        yield _Copy(self._engine.contents())

    @asynccontextmanager
    async def staging(self) -> AsyncIterator[Staged]:
        """Yield an empty `Staged`, to be filled in a thread and given to `exchange`."""
        with tempfile.TemporaryDirectory() as folder:
            staged = await anyio.to_thread.run_sync(Staged, Path(folder) / "storage")
            try:
                yield staged
            finally:
                await anyio.to_thread.run_sync(staged.remove)

    async def exchange(self, staged: Staged) -> None:
        """Exchange the entries of the staged namespaces for the staged ones, in one transaction.

        Args:
            staged: The new entries; afterwards it has the former ones.

        Raises:
            StorageError: The exchange failed.
        """
        new = await anyio.to_thread.run_sync(staged.entries)
        await self._engine.flush()
        await self._engine.refresh()
        contents = self._engine.contents()
        former = {name: contents.get(name, {}) for name in new}
        changes: list[Changes] = [_Replacement(name, {**rows}) for name, rows in new.items()]
        await self._engine.exchange(changes)
        await anyio.to_thread.run_sync(staged.refill, former)

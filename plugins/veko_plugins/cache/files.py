"""The store in a folder: Litestar's `FileStore`, kept within a bound.

`FileStore` removes an expired file only when its key is asked for, so a sweep removes the others,
those that nobody can read, and the oldest if the folder is larger than its bound. The folder is for
this user alone: it may hold what pages show.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec
from litestar.stores.base import StorageObject
from litestar.stores.file import FileStore

from veko.errors import OptionError

from .._lib.private_files import private_folder
from .litestar import LitestarStore

__all__ = ["FolderStore"]

_WRITING: Final = 60.0
"""Seconds after which a file that cannot be read is not being written any more."""
_VERSION: Final = 16
"""Bytes of a version. They are the oldest of all, and every entry depends on some."""


class FolderStore(LitestarStore):
    """Files in a folder, one an entry.

    Args:
        folder: The folder; nothing else may be in it.
        max_bytes: How large it may be after a sweep.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        super().__init__(FileStore(folder), location=f"file:{folder}", shared=True)
        self._folder = folder
        self._limit = max_bytes

    async def open(self) -> None:
        """Create the folder.

        Raises:
            OptionError: It cannot be created.
        """
        try:
            await anyio.to_thread.run_sync(private_folder, self._folder)
        except OSError as error:
            raise OptionError(
                f"the folder of the cache cannot be created: {error}",
                path=self._folder,
                remedy='Give a folder that this user may write to: cache = "file:PATH".',
            ) from error
        await super().open()

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys; a damaged file counts as missing."""
        found: list[bytes | None] = []
        for key in keys:
            try:
                found.append(await self._store.get(key))
            except msgspec.DecodeError:
                found.append(None)
        return found

    async def ping(self) -> None:
        """Return if the folder can be written to.

        Raises:
            OSError: It cannot.
        """
        await anyio.to_thread.run_sync(self._touch)

    def _touch(self) -> None:
        private_folder(self._folder)
        probe = self._folder / "ping"
        probe.touch(0o600)
        probe.unlink(missing_ok=True)

    async def sweep(self) -> None:
        """Remove what has expired or cannot be read, and the oldest beyond the bound."""
        await anyio.to_thread.run_sync(self._sweep)

    def _sweep(self) -> None:
        now = time.time()
        kept: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process has removed it
                stat = path.stat()
                try:
                    found = StorageObject.from_bytes(path.read_bytes())
                except msgspec.DecodeError:
                    if stat.st_mtime + _WRITING < now:
                        path.unlink()
                    continue
                if found.expired:
                    path.unlink()
                elif len(found.data) > _VERSION:
                    kept.append((stat.st_mtime, stat.st_size, path))
        size = sum(one[1] for one in kept)
        for _, of_file, path in sorted(kept):
            if size <= self._limit:
                break
            path.unlink(missing_ok=True)
            size -= of_file

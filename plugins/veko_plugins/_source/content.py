"""The content of a plugin's files as digests, to find out whether they have changed.

Sources that may be imported and files up to 64 KiB count by their bytes, and so do those that did
before; larger ones count by size and time: nothing of them is read. Files that tools write for
themselves (see `files`), FIFOs and devices do not count.

Cost: for a plugin of one file, a digest of what was read anyway; for a folder, the files that were
not imported are read too: some 20 µs a file.
Promise: of a source that was imported, the bytes that ran count, even if the file changed since.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import anyio.to_thread

from .._lib.regular_files import open_regular
from .bytecode import MAX_SOURCE
from .files import Watched
from .scripts import PACKAGE, is_script
from .transpilers import PYTHON

__all__ = ["Content", "content_now", "content_of", "differing"]

_LARGE: Final = 64 * 2**10
_DIGEST: Final = 16
"""The size of a digest; what stands for the size and time of a file is longer."""

Content = dict[str, bytes]
"""Digests by path."""


def content_of(
    path: Path,
    held: Mapping[str, bytes] | None = None,
    *,
    before: Mapping[str, bytes] | None = None,
    keep: dict[str, bytes] | None = None,
    limit: int = MAX_SOURCE,
) -> Content:
    """Return the digests of a plugin's files.

    Args:
        path: The file or folder; it may be missing.
        held: Sources by path that are not read again.
        before: The digests before; those files count wherever they lie, as a link may have led to
            them.
        keep: A mapping to put the folder's other sources into, without those that links bring in
            from outside.
        limit: The largest source that may be imported, in bytes.
    """
    held, before = held or {}, before or {}
    found = {file: _digest(source) for file, source in held.items()}
    if str(path) in held:
        return found
    home = "" if keep is None else os.path.realpath(path) + os.sep
    inside = Watched((path.parent,), ()).look([path]) if path.is_dir() else {path: None}
    for name in {*map(str, inside), *before} - held.keys():
        file = Path(name)
        source = name.endswith((PYTHON, PACKAGE)) or is_script(name)
        whole = source or len(before.get(name, b"")) == _DIGEST
        try:
            opened, state = open_regular(file)
            with opened:
                if state.st_size > (limit if whole else _LARGE):
                    found[name] = b"%d %d" % (state.st_size, state.st_mtime_ns)
                    continue
                data = opened.readall()
        except OSError:
            continue  # it was removed meanwhile, is not readable, or is no regular file
        found[name] = _digest(data)
        if source and keep is not None and os.path.realpath(name).startswith(home):
            keep[name] = data
    return found


async def content_now(path: Path, before: Content, limit: int = MAX_SOURCE) -> Content:
    """Return the digests of a plugin's files as they are now; folders are read in a thread.

    Args:
        path: The file or folder.
        before: The digests before; those files count wherever they lie.
        limit: The largest source that may be imported, in bytes.
    """
    if path.suffix == PYTHON or is_script(path):  # a folder of that name is not a plugin
        return content_of(path, limit=limit)
    return await anyio.to_thread.run_sync(
        functools.partial(content_of, path, before=before, limit=limit)
    )


def differing(before: Content, now: Content, ignored: Iterable[Path] = ()) -> set[Path]:
    """Return the files that differ between two contents, without the ignored ones."""
    skipped = {str(path) for path in ignored}
    return {
        Path(name)
        for name in before.keys() | now.keys()
        if before.get(name) != now.get(name) and name not in skipped
    }


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()

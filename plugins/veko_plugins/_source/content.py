"""What a plugin's file or folder holds, so that its next state can be told from the present one.

Sources count by their bytes; other files up to 64 KiB too, larger ones by size and time. What
tools write for themselves (see `_watched`) is not there.

Cost: a plugin of one file: a digest of what was read anyway. Of a folder, what was not imported is
read as well: some 20 us a file.
Promise: what an import has run is what counts for it, even if the file changed since.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import anyio.to_thread

from .files import Watched

__all__ = ["Content", "content_now", "content_of", "differing"]

_LARGE: Final = 64 * 2**10
_SOURCE: Final = ".py"

Content = dict[str, bytes]
"""A digest by path."""


def content_of(
    path: Path,
    held: Mapping[str, bytes] | None = None,
    *,
    also: Iterable[str] = (),
    keep: dict[str, bytes] | None = None,
) -> Content:
    """Return what a plugin's file or folder holds.

    Args:
        path: The file or folder; nothing if it is not there.
        held: Sources by path that count as they are here.
        also: Other files that count, if they are there: a link may have led to them.
        keep: Where sources of a folder are put that are not in `held`; of links only those that
            stay in the folder.
    """
    held = held or {}
    found = {file: _digest(source) for file, source in held.items()}
    if str(path) in held:
        return found
    home = os.path.realpath(path) + os.sep
    inside = Watched((path.parent,), ()).look([path]) if path.is_dir() else {path: None}
    for name in {*map(str, inside), *also} - held.keys():
        file = Path(name)
        source = name.endswith(_SOURCE)
        try:
            state = file.stat()
            if state.st_size > _LARGE and not source:
                found[name] = b"%d %d" % (state.st_size, state.st_mtime_ns)
                continue
            data = file.read_bytes()
        except OSError:
            continue  # it went meanwhile, or may not be read
        found[name] = _digest(data)
        if source and keep is not None and os.path.realpath(name).startswith(home):
            keep[name] = data
    return found


async def content_now(path: Path, before: Content) -> Content:
    """Return what a plugin's file or folder holds now, folders read in a thread.

    Args:
        path: The file or folder.
        before: What it held before; its files count wherever they lie.
    """
    if path.suffix == _SOURCE:  # a folder of that name is no plugin
        return content_of(path)
    return await anyio.to_thread.run_sync(functools.partial(content_of, path, also=before))


def differing(before: Content, now: Content, ignored: Iterable[Path] = ()) -> set[Path]:
    """Return the files that are not the same in two contents, but for some."""
    some = {str(path) for path in ignored}
    return {
        Path(name)
        for name in before.keys() | now.keys()
        if before.get(name) != now.get(name) and name not in some
    }


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()

"""The entry points of installed distributions, read once for as long as none comes or goes.

To read them all takes 4 to 20 ms: a file for each distribution. They are read again if `sys.path`
or `sys.meta_path` differs, or if a folder on the path has changed: to install, upgrade or remove a
distribution changes its folder.

Cost: a call of `stat` for each folder on the path.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

__all__ = ["find_entry_points"]

_State = tuple[object, ...]
_RECENT: Final = 2_000_000_000
"""Nanoseconds for which a change is recent: another one may get the same time of change."""
_known: Final[dict[_State, Any]] = {}
"""What `entry_points()` returned last, whose type depends on the version of Python."""


def find_entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group, as installed now."""
    state, changed = _state()
    found = _known.get(state)
    if found is None:
        found = entry_points()  # with a group, it would look through all of them too
        _known.clear()
        # By the distance: in a simulation, now may be at any time.
        if abs(time.time_ns() - changed) > _RECENT:
            _known[state] = found
    return tuple(found.select(group=group))


def _state() -> tuple[_State, int]:
    """Return what the entry points depend on, and when it changed last, in nanoseconds."""
    folders: list[tuple[int, int, int] | None] = []
    changed = 0
    for path in sys.path:
        try:
            found = os.stat(path or ".")  # noqa: PTH116 - at each start and each request for a plugin
        except (OSError, ValueError):
            folders.append(None)
            continue
        folders.append((found.st_dev, found.st_ino, found.st_mtime_ns))
        changed = max(changed, found.st_mtime_ns)
    finders = tuple(id(finder) for finder in sys.meta_path)
    return (tuple(sys.path), finders, tuple(folders)), changed

"""Watching the settings files: they are read at the start, so a change has no effect before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import anyio

__all__ = ["watch_settings"]

_INTERVAL: Final = 1.0
"""Seconds between two looks."""


async def watch_settings(
    files: Iterable[Path], read: Callable[[], object], changed: Callable[[], object]
) -> None:
    """Look at the settings files each second, until cancelled.

    Args:
        files: The settings files; they may be missing.
        read: Returns the settings that they hold; called when a file was touched.
        changed: Called each time that the settings are not what they were.
    """
    files = tuple(files)
    stamps, before = [_stamp(file) for file in files], read()
    while True:
        await anyio.sleep(_INTERVAL)
        now = [_stamp(file) for file in files]
        if now != stamps:
            stamps, settings = now, read()
            if settings != before:
                before = settings
                changed()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        state = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size

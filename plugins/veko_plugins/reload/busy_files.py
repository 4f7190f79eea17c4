"""What says too much: files that are written all the time, and settings that are read once."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final

import anyio

__all__ = ["MOST", "Noise", "settings_changed"]

MOST: Final = 10
_MINUTE: Final = 60.0
_SOURCES: Final = (".py", ".toml")


class Noise:
    """Tells files that people save from those that programs write.

    A file that is no source and has changed more than `MOST` times within a minute is noise.
    """

    def __init__(self) -> None:
        self._times: dict[Path, deque[float]] = {}

    def found(self, changed: Collection[Path]) -> list[Path]:
        """Return the noise among files that have changed; nothing if a source is among them."""
        if any(path.suffix in _SOURCES for path in changed):
            return []
        return [path for path in changed if self._too_often(path, time.monotonic())]

    def _too_often(self, path: Path, now: float) -> bool:
        times = self._times.setdefault(path, deque(maxlen=MOST))
        if len(times) == MOST and now - times[0] < _MINUTE:
            del self._times[path]
            return True
        times.append(now)
        return False


async def settings_changed(
    files: Iterable[Path], read: Callable[[], object], say: Callable[[], object]
) -> None:
    """Look at the settings files each second, and say each time that they say something else."""
    files = tuple(files)
    stamps, before = [_stamp(file) for file in files], read()
    while True:
        await anyio.sleep(1.0)
        now = [_stamp(file) for file in files]
        if now != stamps:
            stamps, told = now, read()
            if told != before:
                before = told
                say()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        state = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size

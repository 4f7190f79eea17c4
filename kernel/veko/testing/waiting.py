"""Where tasks wait: the lines of their await chains, as people read them."""

from __future__ import annotations

import asyncio
import linecache
from pathlib import Path
from types import FrameType
from typing import Any

from .._bus.frames import suspended_frames

__all__ = ["describe", "name_of", "position"]

_SHOWN = 3
"""How many parts of a path are shown."""


def name_of(task: asyncio.Task[Any]) -> str:
    """The name of a task, or of what it runs if nobody has named it."""
    name = task.get_name()
    if not name.startswith("Task-"):
        return name
    return f"{name} ({getattr(task.get_coro(), '__qualname__', 'a coroutine')})"


def describe(task: asyncio.Task[Any]) -> str:
    """Describe where a task waits: a line for each frame, the outermost first."""
    lines = [f"  {name_of(task)!r} waits"]
    waits_for = getattr(task, "_fut_waiter", None)
    if isinstance(waits_for, asyncio.Task):
        lines[0] += f" for the task {name_of(waits_for)!r}"
    frames = list(suspended_frames(task.get_coro()))
    lines += [f"    {_line(frame)}" for frame in frames]
    if not frames:
        lines[0] = f"  {name_of(task)!r} has not begun"
    return "\n".join(lines)


def position(task: asyncio.Task[Any]) -> str:
    """Describe in a few words where a task continues: its innermost line that is no library's."""
    frames = list(suspended_frames(task.get_coro()))
    if not frames:
        return repr(name_of(task))
    own = [frame for frame in frames if not _of_library(frame.f_code.co_filename)]
    frame = (own or frames)[-1]
    file = Path(frame.f_code.co_filename).name
    return f"{name_of(task)!r} ({file}:{frame.f_lineno} in {frame.f_code.co_name})"


def _line(frame: FrameType) -> str:
    file, number = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, number).strip()
    short = "/".join(part for part in Path(file).parts[-_SHOWN:] if part != "/")
    return f"{short}:{number} in {frame.f_code.co_name}" + (f": {text}" if text else "")


def _of_library(file: str) -> bool:
    parts = Path(file).parts
    return file.startswith("<") or "site-packages" in parts or "asyncio" in parts[-2:]

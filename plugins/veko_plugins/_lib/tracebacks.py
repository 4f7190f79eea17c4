"""Tracebacks for the authors of plugins: their own frames first, those of Veko folded.

An error that Veko made of a plugin's error adds nothing to the message, so only the plugin's own
error is shown. An error without any frame of a plugin or library has no traceback here.

Cost: reading the source lines of the frames that are shown.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, TypeAlias

from veko.extend import of_veko

__all__ = ["folded"]

_Frame: TypeAlias = tuple[bool, traceback.FrameSummary]
"""Whether it is Veko's, and the frame."""
_MOST: Final = 5
"""Errors of a chain or group that are shown."""
_LINES: Final = 40
"""Frames in a row that are shown; of more, the first and the last half."""
_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"


def folded(error: BaseException) -> str:
    """Return the traceback of an error, without Veko's frames; empty if there are no others."""
    return "".join(_chain(error, set())).rstrip("\n")


def _chain(error: BaseException, seen: set[int]) -> Iterator[str]:
    if id(error) in seen or len(seen) >= _MOST:
        return
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    shown = list(_chain(before, seen)) if before is not None else []
    own = list(_frames(error.__traceback__))
    yield from shown
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _chain(one, seen)
        return
    if all(house for house, _ in own):
        return  # the message says it
    if shown:
        yield _CAUSE if error.__cause__ is not None else _CONTEXT
    yield "Traceback (most recent call last):\n"
    yield from _written(own)
    yield from traceback.format_exception_only(error)


def _frames(trace: TracebackType | None) -> Iterator[_Frame]:
    """Yield the frames, the outermost first, and whether each is Veko's."""
    stack = traceback.extract_tb(trace)
    for (frame, _), summary in zip(traceback.walk_tb(trace), stack, strict=True):
        yield of_veko(frame), summary


def _inner(frames: list[_Frame]) -> list[_Frame]:
    """Leave out Veko's frames before the first other frame: they led to the plugin's code."""
    return list(itertools.dropwhile(lambda one: one[0], frames))


def _written(frames: Iterable[_Frame]) -> Iterator[str]:
    for house, group in itertools.groupby(_inner(list(frames)), key=lambda one: one[0]):
        found = [summary for _, summary in group]
        if house:
            yield f"  ... {len(found)} frame{'s' if len(found) > 1 else ''} of Veko\n"
        elif len(found) <= _LINES:
            yield from traceback.StackSummary.from_list(found).format()
        else:
            half = _LINES // 2
            yield from traceback.StackSummary.from_list(found[:half]).format()
            yield f"  ... {len(found) - 2 * half} frames\n"
            yield from traceback.StackSummary.from_list(found[-half:]).format()

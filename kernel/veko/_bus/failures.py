"""Failures: where an error was raised, and the one line that a log record says of it.

The location is the innermost frame of the owner's own files, so an error deep in a library points
at the owner's line that led there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, NamedTuple

from ..errors import VekoError, text_of

__all__ = ["Location", "location_of", "of_veko", "subject_of", "summary"]

LONGEST: Final = 600
"""Characters of an error's text that a record shows."""
_LONGEST_LABEL: Final = 200
_MOST: Final = 3
"""Errors of a group that a record shows."""
_HOUSE: Final = frozenset({"veko", "veko_plugins", "veko_adapters"})
"""Packages whose frames lead to an owner's code and are never what failed in it."""
_TESTS: Final = "veko_adapters.conformance"
"""Its tests are plugins, though they are part of a package of Veko's."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Location(NamedTuple):
    """Where an error was raised.

    Attributes:
        path: The file.
        line: The line, from 1.
        function: The function of the owner that was called.
    """

    path: str
    line: int
    function: str


def location_of(error: BaseException, source: Path | None = None) -> Location | None:
    """Return where an error was raised; `None` if no frame but Veko's own tells.

    Args:
        error: The error. What caused it is looked at if it was raised by Veko itself.
        source: The file or folder (or its `__init__.py`) that the owner's code is in. Without it,
            or if no frame is in it, the innermost frame outside of Veko counts.
    """
    seen: set[int] = set()
    looked: BaseException | None = error
    while looked is not None and id(looked) not in seen:
        seen.add(id(looked))
        if isinstance(looked, BaseExceptionGroup):  # what a group gathers tells more than it does
            found = location_of(looked.exceptions[0], source)
            if found is not None:
                return found
        frames = list(_frames(looked.__traceback__))
        inside = [_is_inside(frame.path, source) for frame in frames]
        if not any(inside):
            inside = [frame.path != "" for frame in frames]
        if any(inside):
            last = len(inside) - 1 - inside[::-1].index(True)
            first = last
            while first and inside[first - 1]:
                first -= 1
            return frames[last]._replace(function=frames[first].function)
        looked = looked.__cause__
    return None


def of_veko(frame: FrameType) -> bool:
    """Tell whether a frame is of Veko's own code, which leads to the code of an owner."""
    name = str(frame.f_globals.get("__name__", ""))
    generated = frame.f_code.co_filename.startswith("<veko ")
    return generated or (name.partition(".")[0] in _HOUSE and not name.startswith(_TESTS))


def _frames(trace: TracebackType | None) -> Iterator[Location]:
    """Yield the frames of a traceback; those of Veko have no path."""
    while trace is not None:
        code = trace.tb_frame.f_code
        path = "" if of_veko(trace.tb_frame) else code.co_filename
        yield Location(path, trace.tb_lineno, code.co_qualname)
        trace = trace.tb_next


def _is_inside(path: str, source: Path | None) -> bool:
    if source is None or not path:
        return False
    folder = source.parent if source.name == "__init__.py" else source
    return path == str(source) or path.startswith(f"{folder}{os.sep}")


def subject_of(args: Sequence[object]) -> object:
    """Return the argument of an emission that a record names: the first one that has a label."""
    return next((arg for arg in args if isinstance(_label(arg), str)), None)


def _label(subject: object) -> object:
    # Of the type: a proxy's `__getattr__` may answer anything, and need not be asked.
    return getattr(subject, "label", None) if hasattr(type(subject), "label") else None


def summary(
    error: BaseException,
    *,
    owner: str | None = None,
    event: str | None = None,
    handler: str | None = None,
    subject: object = None,
    source: Path | None = None,
) -> str:
    """Return one line about a failure: whose, class and text of the error, where, and what to do.

    Args:
        error: What was raised.
        owner: The name of the owner of the code.
        event: The event that was being emitted.
        handler: The name of the function.
        subject: What was being worked on; shown by its attribute `label`, if it has one.
        source: The file that the owner's code is in; see `location_of`.
    """
    found = location_of(error, source)
    ours = error if isinstance(error, VekoError) else None
    file = None if found is None else f"{found.path}:{found.line}"
    if ours is not None and ours.path is not None:
        file = f"{ours.path}:{ours.line}" if ours.line else str(ours.path)
    label = _label(subject)
    facts = (
        ("handler", handler or (found.function if found is not None else None)),
        ("event", event or (ours.event if ours is not None else None)),
        ("request", _clipped(label, _LONGEST_LABEL) if isinstance(label, str) else None),
        ("file", file),
    )
    where = ", ".join(f"{what} {fact}" for what, fact in facts if fact)
    text = f"{owner or handler or 'a handler'} failed: {_text(error)}"
    text = f"{text} ({where})" if where else text
    if ours is not None and ours.remedy:
        text = f"{text}. {ours.remedy}"
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def _text(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        texts = [_text(one) for one in error.exceptions[:_MOST]]
        more = len(error.exceptions) - len(texts)
        return _clipped("; ".join([*texts, *([f"{more} more"] if more else [])]), LONGEST)
    text = error.message if isinstance(error, VekoError) else text_of(error)
    name = type(error).__name__
    return f"{name}: {_clipped(text, LONGEST)}" if text else name


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"

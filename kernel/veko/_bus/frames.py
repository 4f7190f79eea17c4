"""Which calls run where, read from frames, so that calls themselves cost nothing more.

Nothing records which task runs what. When that is needed, frames are read: those below the caller,
or the await chains of all suspended tasks. A task that is suspended in an owner's handler is found
by the frame of the emission; one in an owner's work that holds an older registry, by the pin in a
frame. Cutting a call cancels what the task awaits, not the task: its caller sees a failure.

Not cut are calls in threads and calls that swallow their cancellation. Only asyncio lets a task be
cancelled from outside; on trio calls continue.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Iterator
from types import FrameType
from typing import Any, TypeVar

from .codegen import FILENAME
from .limits import on_asyncio, resume
from .local_variables import local_of
from .lookup import Plans
from .owners import Owner
from .pins import Pin
from .plans import EMITTING, Plan
from .registry import Registry

__all__ = ["called_owner", "cut", "detach", "move_on", "suspended_frames"]

_O = TypeVar("_O", bound=Owner)


def detach(bus: object) -> frozenset[int]:
    """Release the pins of a bus that the caller holds: what it begins need not wait for them.

    Returns:
        The ids of the tokens of the emissions that the caller runs in.
    """
    frame: FrameType | None = sys._getframe(1)
    tokens: set[int] = set()
    while frame is not None:
        if _emits(frame):
            tokens.add(id(local_of(frame, "token")))
        frame = frame.f_back
    Pin.release_all(bus)
    return frozenset(tokens)


def cut(owners: Collection[_O], before: Registry, spare: Collection[int]) -> dict[_O, int]:
    """Cancel the calls into owners that were removed, and return how many that were.

    Args:
        owners: The owners.
        before: The last registry that had them.
        spare: Ids of the tokens of emissions to leave alone.
    """
    cancelled: dict[_O, int] = {}
    for task in asyncio.all_tasks() if on_asyncio() is not None else ():
        frames = list(suspended_frames(task.get_coro()))
        if any(id(local_of(frame, "token")) in spare for frame in frames if _emits(frame)):
            continue
        found = [_owner(frame, owners, before) for frame in frames]
        for owner in (one for one in found if one is not None):
            task.cancel()
            task.uncancel()  # its call has failed; the task itself must not end
            cancelled[owner] = cancelled.get(owner, 0) + 1
            break
    return cancelled


def move_on(older: Collection[Plans], before: Registry, staying: Collection[str]) -> None:
    """Let pins of older registries hold the live one, so that nothing removed is called.

    Args:
        older: The plans of the older registries.
        before: The last registry that is let go.
        staying: Names of owners whose own work keeps its registry.
    """
    for plans in [old for old in older if old.registry.version <= before.version]:
        for pin in tuple(plans.pins):
            if isinstance(pin, Pin) and pin.owner not in staying:
                pin.move_on()


def suspended_frames(awaited: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine and what it awaits, the outermost first."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            return
        yield frame
        if frame.f_code is resume.__code__:  # it drives a coroutine by hand
            awaited = local_of(frame, "coroutine")
        else:
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def called_owner(frame: FrameType) -> object:
    """Return the owner of the handler that an emission has called; `None` for other frames."""
    step = Plan.step_of(frame) if _emits(frame) else None
    return None if step is None else step.subscription.owner


def _emits(frame: FrameType) -> bool:
    return frame.f_code.co_filename == FILENAME or frame.f_code in EMITTING


def _owner(frame: FrameType, owners: Collection[_O], before: Registry) -> _O | None:
    """Return the one of some owners that a frame has called and awaits, if any."""
    if _emits(frame):
        step = Plan.step_of(frame)
        owner = None if step is None else step.subscription.owner
        return next((one for one in owners if one is owner), None)
    # A pin is found by its type, under whatever name: the code that holds it is not ours.
    for pin in frame.f_locals.values():
        if not isinstance(pin, Pin) or pin.plans is None:
            continue
        if pin.plans.registry.version <= before.version:
            owner = next((one for one in owners if one.name == pin.owner), None)
            pin.cut = owner is not None
            if owner is not None:
                return owner
    return None

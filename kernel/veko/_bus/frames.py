"""Cutting: how calls into what has left end, when they were waited for long enough.

Nothing notes which task runs what, so calls cost nothing more for it. When it is wanted, the await
chains of all suspended tasks are walked: a task that stands in a handler of the generation, or in a
request of its plugin that holds an older registry, is found by its frames. What it awaits is
cancelled, the task is not: for whoever called, the call has failed.

It promises no more than that: a call in a thread goes on, and one that swallows its cancellation
too. Only asyncio lets a task be cancelled from outside; on trio calls go on.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Collection, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from .bus import EMITTING, Bus
from .codegen import FILENAME
from .limits import on_asyncio, resume
from .pins import Pin
from .plans import Step
from .registry import Registry

if TYPE_CHECKING:
    from .._life.generation import Generation

__all__ = ["cut", "move_on"]


def cut(
    generations: Collection[Generation], before: Registry, spare: Collection[int]
) -> dict[Generation, int]:
    """Cancel what runs in generations that have left, and return how many calls that were.

    Args:
        generations: They have left.
        before: The last registry that had them.
        spare: Ids of the tokens of emissions to leave alone.
    """
    cancelled: dict[Generation, int] = {}
    for task in asyncio.all_tasks() if on_asyncio() is not None else ():
        frames = list(_frames(task.get_coro()))
        if any(id(frame.f_locals.get("token")) in spare for frame in frames if _emits(frame)):
            continue
        owners = [_owner(frame, generations, before) for frame in frames]
        for owner in (one for one in owners if one is not None):
            task.cancel()
            task.uncancel()  # its call has failed; the task itself is to go on
            cancelled[owner] = cancelled.get(owner, 0) + 1
            break
    return cancelled


def move_on(bus: Bus, before: Registry, staying: Collection[str]) -> None:
    """Let what holds an older registry go on with the live one, so that nothing gone is called.

    Args:
        bus: The bus.
        before: The last registry that is to be let go.
        staying: Names of plugins whose own requests keep theirs.
    """
    for registry in [old for old in bus.older if old.version <= before.version]:
        for pin in [pin for pin in registry.pins if pin.owner not in staying]:
            pin.move_on()


def _frames(awaited: Any) -> Iterator[FrameType]:
    """Give the frames of a suspended task, the outermost first."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            return
        yield frame
        if frame.f_code is resume.__code__:  # it drives a coroutine by hand
            awaited = frame.f_locals["coroutine"]
        else:
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def _emits(frame: FrameType) -> bool:
    return frame.f_code.co_filename == FILENAME or frame.f_code in EMITTING


def _owner(
    frame: FrameType, generations: Collection[Generation], before: Registry
) -> Generation | None:
    """Return the generation whose code a frame has called and awaits."""
    if _emits(frame):
        step: Step | None = None
        if frame.f_code.co_filename == FILENAME:
            place = bisect.bisect_right(frame.f_globals["starts"], frame.f_lineno) - 1
            step = frame.f_globals.get(f"s{place}")
        elif "ask" in frame.f_locals:  # one of those that are asked at once
            step = getattr(frame.f_locals["ask"], "args", (None,))[-1]
        elif frame.f_code is not Bus.ask_at_once.__code__:
            step = frame.f_locals.get("step")
        owner = None if step is None else step.subscription.owner
        return next((one for one in generations if one is owner), None)
    if "pin" not in frame.f_code.co_varnames:
        return None
    pin = frame.f_locals.get("pin")
    if isinstance(pin, Pin) and pin.held and pin.registry.version <= before.version:
        owner = next((one for one in generations if one.name == pin.owner), None)
        pin.cut = owner is not None
        return owner
    return None

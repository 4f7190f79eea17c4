"""Emitters: `emit` bound to an event, aimed at the event's plan without a lookup.

An emitter is a partial because a call through one costs 10 ns, where a closure or a method costs
60. Everyone who asked for it holds the same object, so when the plan changes its function is
changed in place, which only `__setstate__` can do. Held by test_emitters_follow_changes.

The emitter of an event that has no handlers calls `unheard`, so a hot place that compares its
`func` need not even make that call.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from .lookup import Lookup
from .plans import Plan

__all__ = ["Emitters", "unheard"]

_Emit = Callable[..., Coroutine[Any, Any, Any]]
_MISSING: Final[Any] = object()


async def unheard(value: Any = None, *args: Any) -> Any:
    """Emit an event that has no handlers."""
    return value


class Emitters:
    """The emitters of a bus, held weakly: there is no limit to the names that are asked for.

    Args:
        emit: Emits an event by name.

    Attributes:
        held: The emitters by event, as long as somebody holds them.
    """

    def __init__(self, emit: _Emit) -> None:
        self._emit = emit
        self.held: weakref.WeakValueDictionary[str, functools.partial[Coroutine[Any, Any, Any]]]
        self.held = weakref.WeakValueDictionary()

    def get(self, event: str, plans: Lookup) -> functools.partial[Coroutine[Any, Any, Any]]:
        """Return the emitter of an event."""
        emitter = self.held.get(event)
        if emitter is None:
            emitter = self.held[event] = functools.partial(self._emit, event)
            plan = plans[event]
            if plan is not None:
                self.aim(plan, plans)
            elif plans.get(event, _MISSING) is None:  # not where the context decides
                _set(emitter, unheard)
        return emitter

    def aim(self, plan: Plan, plans: Lookup) -> None:
        """Let the emitter of a plan's event call that plan, if it is the one in use."""
        emitter = self.held.get(plan.event)
        if emitter is not None:
            used = plan if plan.steps else None
            if plans.get(plan.event, _MISSING) is used:
                _set(emitter, plan.call if plan.steps else unheard)

    def settle(self, plans: Lookup, events: Iterable[str] | None) -> None:
        """Let emitters call the plan that is in use, or look for it if none is made yet.

        Args:
            plans: The plans that are in use.
            events: The events whose plans have changed; `None` for all.
        """
        for event in tuple(self.held) if events is None else events:
            emitter = self.held.get(event)
            if emitter is None:
                continue
            used = plans.get(event, _MISSING)
            if used is _MISSING:
                _set(emitter, self._emit, event)
            else:
                _set(emitter, unheard if used is None else used.call)


def _set(emitter: functools.partial[Any], function: _Emit, *args: str) -> None:
    emitter.__setstate__((function, args, {}, None))  # type: ignore[attr-defined]

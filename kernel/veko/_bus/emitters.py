"""What runs an event, by name or bound: the call of its plan, kept without a lookup of the plan.

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
from typing import TYPE_CHECKING, Any, Protocol

from .arguments import name_of_event
from .events import Event
from .lookup import Lookup
from .plans import Plan

__all__ = ["ByName", "Emitters", "unheard"]

_Emit = Callable[..., Coroutine[Any, Any, Any]]


async def unheard(value: Any = None, *args: Any) -> Any:
    """Emit an event that has no handlers."""
    return value


class Host(Protocol):
    """What emitters need of their bus."""

    def plan(self, event: str) -> Plan | None:
        """The plan of an event here and now."""

    def pinned(self) -> Lookup:
        """The plans that are pinned here, else those of what is live."""
        ...

    def aim(self, event: str) -> None:
        """Call `Emitters.aim`, or `ask` where an event has another plan inside of some pin."""


class ByName(dict[str, _Emit]):
    """What runs an event, by name: the calls of live plans.

    Each name in it has a plan in one of the tables of plans, which are bounded.
    """

    __slots__ = ("_host",)

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    if TYPE_CHECKING:

        def __getitem__(self, event: str | Event[Any], /) -> _Emit: ...

    def __missing__(self, event: str | Event[Any]) -> _Emit:
        if isinstance(event, str):
            self._host.plan(event)
            self._host.aim(event)
        return self[name_of_event(event)]


class Emitters:
    """The emitters of a bus, held weakly: there is no limit to the names that are asked for.

    Args:
        host: The bus.
        emit: Emits an event by name.

    Attributes:
        calls: What runs an event by name. An emitter is aimed at what it has for its event.
        held: The emitters by event, as long as somebody holds them.
    """

    def __init__(self, host: Host, emit: _Emit) -> None:
        self._host = host
        self._emit = emit
        self._asking: set[str] = set()
        self.calls = ByName(host)
        self.held: weakref.WeakValueDictionary[str, functools.partial[Coroutine[Any, Any, Any]]]
        self.held = weakref.WeakValueDictionary()

    def get(self, event: str) -> functools.partial[Coroutine[Any, Any, Any]]:
        """Return the emitter of an event."""
        emitter = self.held.get(event)
        if emitter is None:
            emitter = self.held[event] = functools.partial(self._emit, event)
            _set(emitter, self.calls[event])
        return emitter

    def aim(self, event: str, call: _Emit) -> None:
        """Let what emits an event make a call, whatever the context."""
        self.calls[event] = call
        if self.held and (emitter := self.held.get(event)) is not None:
            _set(emitter, call)

    def ask(self, event: str) -> None:
        """Let what emits an event look for the pin in the context."""
        self._asking.add(event)
        self.aim(event, functools.partial(self._emit_here, event))

    def stop_asking(self) -> None:
        """Let what asks the context look again: the pins for which it asks may have ended."""
        self.drop(tuple(self._asking))

    def drop(self, events: Iterable[str]) -> None:
        """Let what emits some events look for the plan."""
        for event in events:
            self._asking.discard(event)
            if self.calls.pop(event, None) is not None and self.held:
                emitter = self.held.get(event)
                if emitter is not None:
                    _set(emitter, self._emit, event)

    def _emit_here(self, event: str, value: Any = None, *args: Any) -> Coroutine[Any, Any, Any]:
        plan = self._host.pinned()[event]
        return unheard(value) if plan is None else plan.call(value, *args)


def _set(emitter: functools.partial[Any], function: _Emit, *args: str) -> None:
    emitter.__setstate__((function, args, {}, None))  # type: ignore[attr-defined]

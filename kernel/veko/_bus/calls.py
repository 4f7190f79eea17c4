"""Calls that no event causes (a route's handler, a middleware, a command, a task), with probes.

A call is kept as a partial, whose function is made at its first use and made again when the probes
change. So it costs 10 ns more than what it calls while there are no probes, and nothing at loading.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Final, Literal

from .handles import Handle, Subscription
from .owners import Owner
from .probes import enclosed
from .registry import PROBE, Registry
from .signature import is_async

__all__ = ["Call", "Calls"]


class Call(Subscription):
    """What a probe gets for a call that no event causes, in place of a subscription.

    Args:
        kind: What is called.
        name: Its name among others of its kind (`GET /x`, the name of a function).
        handler: The function.
        owner: Its owner.

    Attributes:
        kind: As given.
        event: What stands for an event: the name for a route, otherwise the kind and the name.
    """

    __slots__ = ("kind",)

    def __init__(
        self,
        kind: Literal["route", "middleware", "command", "task"],
        name: str,
        handler: Callable[..., Any],
        owner: Owner | str | None,
    ) -> None:
        Handle.__init__(self, None)
        self.kind = kind
        self.event = name if kind == "route" else f"{kind} {name}"
        self.handler = handler
        self.owner = owner
        self.priority = 0.0
        self.timeout = None
        self.observes = False
        self.is_async = is_async(handler)
        self.arity = None

    @classmethod
    def of_task(cls, fn: Callable[..., Any], owner: Owner) -> Call:
        """Return the call of a function in a task."""
        return cls("task", getattr(fn, "__qualname__", type(fn).__qualname__), fn, owner)

    def enclosed(self, registry: Registry) -> Callable[..., Any]:
        """Return the function inside what the probes of a registry put around it."""
        probes = [entry.value(self.event, (self,)) for entry in registry.entries(PROBE)]
        snippets = [
            snippet
            for probe in probes
            if probe is not None
            for snippet in (probe.emission, *probe.hooks)
            if snippet is not None
        ]
        return enclosed(self.handler, snippets)


ROOM: Final = 32
"""For how many calls there is always room; then those that have ended are forgotten."""


class Calls:
    """The calls of a bus that are kept.

    Args:
        live: Returns the registry that is live.
    """

    def __init__(self, live: Callable[[], Registry]) -> None:
        self._live = live
        # Not a set with weak keys: that calls a function for each that ends, and a route table of
        # thousands ends in one step of the event loop.
        self._kept: list[weakref.ref[functools.partial[Any]]] = []
        self._room = ROOM

    def keep(self, call: Call) -> functools.partial[Any]:
        """Return a function that makes a call with the probes of the moment."""
        kept = functools.partial(call.handler)
        self._kept.append(weakref.ref(kept))
        if len(self._kept) > self._room:
            self._kept = [one for one in self._kept if one() is not None]
            self._room = max(ROOM, 2 * len(self._kept))
        self._begin(kept, call)
        return kept

    def probes_changed(self) -> None:
        """Let the next use of each call find its probes."""
        for kept in [found for one in self._kept if (found := one()) is not None]:
            self._begin(kept, kept.__dict__["call"])

    def _begin(self, kept: functools.partial[Any], call: Call) -> None:
        _set(kept, call, self._first, call, weakref.ref(kept))

    def _first(self, call: Call, kept: weakref.ref[functools.partial[Any]], *args: Any) -> Any:
        function = call.enclosed(self._live())
        found = kept()
        if found is not None:
            _set(found, call, function)
        return function(*args)


def _set(
    kept: functools.partial[Any], call: Call, function: Callable[..., Any], *args: Any
) -> None:
    # In place: all that got it hold the same object (see `Emitters`). The call is in its `__dict__`
    # and not in a table here: it leads to the plugin's generation, which may lead back to the
    # partial, and no table with weak keys would ever let go of such a circle.
    kept.__setstate__((function, args, {}, {"call": call}))  # type: ignore[attr-defined]

"""Lookup: which plan an event has, in a registry, in a draft, or inside a pin.

Plans are found by name in one dict lookup, and made when they are missing. A declared `Event` may
be given for a name: it is never a key, so it is always missing, and a name costs nothing for that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from .arguments import name_of_event
from .events import Event, matches
from .plans import Host, Plan
from .registry import HOOK, Registry

__all__ = ["Lookup", "LookupHost", "Plans", "PlansHere", "PlansOfDraft"]

DYNAMIC: Final = 4096


class LookupHost(Host, Protocol):
    """What a lookup needs of its bus.

    Attributes:
        live: The plans of what is live now.
    """

    live: Plans

    def pinned(self) -> Plans:
        """The plans that are pinned in this context, else those of what is live."""
        ...

    def release(self, plan: Plan) -> None:
        """Retire a plan, unless another registry still has it."""


class Lookup(dict[str, Plan | None]):
    """The plan of an event, by name or declared event; `None` for an event without handlers."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __getitem__(self, event: str | Event[Any], /) -> Plan | None: ...

    def __missing__(self, event: str | Event[Any]) -> Plan | None:
        return self._missing(event) if isinstance(event, str) else self[name_of_event(event)]

    def _missing(self, event: str) -> Plan | None:
        raise KeyError(event)


class PlansHere(Lookup):
    """Replaces the plans while a pin holds an older registry: looks for the pin in the context."""

    __slots__ = ("_host",)

    def __init__(self, host: LookupHost) -> None:
        super().__init__()
        self._host = host

    def __missing__(self, event: str | Event[Any]) -> Plan | None:
        return self._host.pinned()[event]


class Plans(Lookup):
    """The plans of one registry, made at first use.

    There is no limit to the names that no handler subscribes to by name (`user:1`, `user:2`, …), so
    past `DYNAMIC` of them their plans are dropped and made again when needed. Names that handlers
    do subscribe to are not counted: with many plugins there are more.

    Attributes:
        registry: The registry.
        pins: The pins that hold it.
        leaving: Plans in it that the next registry does not have: they retire with it.
    """

    __slots__ = ("_dynamic", "_host", "leaving", "pins", "registry")

    def __init__(self, host: LookupHost, registry: Registry) -> None:
        super().__init__()
        self._dynamic = 0  # at least as many as there are
        self._host = host
        self.registry = registry
        self.pins: set[object] = set()
        self.leaving: list[Plan] = []

    def _missing(self, event: str) -> Plan | None:
        if not self.registry.all(HOOK, event):
            if self._dynamic >= DYNAMIC:
                self._forget_names()
            self._dynamic += 1
        plan = Plan(self._host, event, self.registry)
        found = self[event] = plan if plan.steps else None
        if found is not None and self._host.live is not self:
            self.leaving.append(found)  # made for a pin, after the next registry went live
        self._host.aim(plan)
        return found

    def forget_types(self, module: str) -> None:
        """Let the handlers forget that they last returned an object of a class of some module.

        That class would stay in memory (test_a_handler_forgets_the_class_of_an_ended_plugin). A
        plan that has become code keeps it until it is made again.

        Args:
            module: The module, or the package.
        """
        for plan in self.values():
            for step in plan.steps if plan is not None else ():
                step.forget_types(module)

    def _forget_names(self) -> None:
        self._dynamic = 0
        gone = [self.pop(name) for name in list(self) if not self.registry.all(HOOK, name)]
        self.leaving = [plan for plan in self.leaving if self.get(plan.event) is plan]
        for plan in gone:
            if plan is not None:
                self._host.release(plan)

    def after(self, registry: Registry, changed: frozenset[str] | None) -> Plans:
        """Return the plans of the next registry: these without those of changed names or patterns.

        Costs one copy of the table, and otherwise what has changed.

        Args:
            registry: The next registry.
            changed: The names and patterns; `None` for all.
        """
        plans = Plans(self._host, registry)
        if changed is None:
            names = list(self)
        else:
            plans.update(self)
            plans._dynamic = self._dynamic
            patterns = [name for name in changed if "*" in name]
            names = [name for name in changed if name in self]
            if patterns:
                names += [e for e in self if e not in changed and _matched(patterns, e)]
        for name in names:
            plans.pop(name, None)
            plan = self[name]
            if plan is not None:
                self.leaving.append(plan)
        return plans


class PlansOfDraft(Lookup):
    """The plans of a registry that is not live yet: those that are live where nothing changes.

    Args:
        host: The bus.
        live: The plans that are live.
        registry: The registry that is made.
        changed: The names and patterns whose plans differ; `None` for all.
    """

    __slots__ = ("_changed", "_host", "_live", "_patterns", "_registry")

    def __init__(
        self,
        host: LookupHost,
        live: Plans,
        registry: Registry,
        changed: frozenset[str] | None,
    ) -> None:
        super().__init__()
        self._host = host
        self._live = live
        self._registry = registry
        self._changed = changed
        self._patterns = [name for name in changed or () if "*" in name]

    def _missing(self, event: str) -> Plan | None:
        changed = self._changed
        if changed is not None and event not in changed and not _matched(self._patterns, event):
            return self._live[event]
        plan = Plan(self._host, event, self._registry)
        found = self[event] = plan if plan.steps else None
        return found


def _matched(patterns: Iterable[str], event: str) -> bool:
    """Tell whether one of some patterns stands for an event."""
    return any(matches(pattern, event) for pattern in patterns)

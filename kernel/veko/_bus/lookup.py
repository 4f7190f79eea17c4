"""Lookup: which plan an event has, in a registry, in a draft, or inside a pin.

Plans are found by name in one dict lookup, and made when they are missing. A declared `Event` may
be given for a name: it is never a key, so it is always missing, and a name costs nothing for that.

The plans of what is live stay in one table, whatever changes: a change takes out the plans that it
changes, and costs nothing for the others. The plans of an older registry that a pin holds are those
that a change took out, and those made for it since; events that are the same there as in what is
live have the live plan (`PlansHere`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from .arguments import name_of_event
from .events import Event, matches, matching
from .plans import Host, Plan
from .registry import HOOK, Registry

__all__ = ["Changes", "Lookup", "LookupHost", "Plans", "PlansHere", "PlansOfDraft"]

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

    def everywhere(self, event: str) -> bool:
        """Tell whether an event has the live plan inside of every pin, too."""
        ...

    def forget(self, plans: dict[str, Plan | None]) -> None:
        """Retire plans that are in no table any more."""
        ...


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
    """Replaces the plans while pins hold older registries.

    Has the live plans of events that are the same in all of them, so those cost what they always
    do. For the others it looks for the pin in the context.
    """

    __slots__ = ("_host",)

    def __init__(self, host: LookupHost) -> None:
        super().__init__()
        self._host = host

    def _missing(self, event: str) -> Plan | None:
        host = self._host
        if host.everywhere(event):
            plan = host.live[event]
            if host.everywhere(event):  # a probe may subscribe something while the plan is made
                self[event] = plan
                return plan
        return host.pinned()[event]


class Holder(Protocol):
    """What holds the plans of a registry: a pin.

    Attributes:
        plans: The plans.
    """

    plans: Plans | None


class Plans(Lookup):
    """The plans of what is live, or those of an older registry that differ; made at first use.

    There is no limit to the names that no handler subscribes to by name (`user:1`, `user:2`, …), so
    past `DYNAMIC` of them their plans are dropped and made again when needed. Names that handlers
    do subscribe to are not counted: with many plugins there are more.

    Attributes:
        registry: The registry.
        pins: The pins that hold it.
    """

    __slots__ = ("_dynamic", "_host", "pins", "registry")

    def __init__(self, host: LookupHost, registry: Registry) -> None:
        super().__init__()
        self._dynamic = 0  # at least as many as there are
        self._host = host
        self.registry = registry
        self.pins: set[Holder] = set()

    def _missing(self, event: str) -> Plan | None:
        registry = self.registry
        if not registry.all(HOOK, event):
            if self._dynamic >= DYNAMIC:
                self._forget_names()
            self._dynamic += 1
        plan = Plan(self._host, event, registry)
        if self.registry is not registry:  # a probe subscribed something while the plan was made
            return self[event]
        found = self[event] = plan if plan.steps else None
        return found

    def forget_types(self, module: str) -> None:
        """Let the handlers forget that they last returned an object of a class of some module.

        That class would stay in memory (test_a_handler_forgets_the_class_of_an_ended_plugin). A
        plan that has become code keeps it until it is made again.

        Args:
            module: The module, or the package.
        """
        staying = {type(None)}
        for plan in self.values():
            for step in plan.steps if plan is not None else ():
                if step.plain not in staying or step.seen not in staying:
                    step.forget_types(module, staying)

    def _forget_names(self) -> None:
        self._dynamic = 0
        names = [name for name in self if not self.registry.all(HOOK, name)]
        self._host.forget({name: self.pop(name) for name in names})

    def take(self, plans: dict[str, Plan | None]) -> dict[str, Plan | None]:
        """Take over those of some plans that are plans of this registry, too.

        Returns:
            The others, by event.
        """
        rest: dict[str, Plan | None] = {}
        for event, plan in plans.items():
            if plan is None or plan.since > self.registry.version or event in self:
                rest[event] = plan
            else:
                self._dynamic += not self.registry.all(HOOK, event)
                self[event] = plan
        return rest

    def held(self) -> Plans:
        """Return a table for the pins that hold this one, which it leaves to that."""
        plans = Plans(self._host, self.registry)
        plans.pins, self.pins = self.pins, set()
        for pin in plans.pins:
            pin.plans = plans
        return plans

    def move(self, registry: Registry, changed: frozenset[str] | None) -> dict[str, Plan | None]:
        """Become the plans of the next registry.

        Costs what has changed; a pattern, a look at each name.

        Args:
            registry: The next registry.
            changed: The names and patterns; `None` for all.

        Returns:
            The plans that are not those of the next registry, by event.
        """
        self.registry = registry
        if changed is None:
            names = list(self)
        else:
            patterns = [name for name in changed if "*" in name]
            names = [name for name in changed if name in self]
            if patterns:
                names += [name for name in matching(patterns, self) if name not in changed]
        return {name: self.pop(name) for name in names}


class Changes:
    """Since which version of the registry the plan of each event is what it is now.

    Kept while pins hold older registries; in bounded memory.
    """

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._patterns: dict[str, int] = {}
        self._all = 0

    def note(self, version: int, changed: frozenset[str] | None) -> None:
        """Note what changed with a version: names and patterns; `None` for all."""
        for name in changed or ():
            (self._patterns if "*" in name else self._names)[name] = version
        if changed is None or len(self._names) + len(self._patterns) > DYNAMIC:
            self.clear()
            self._all = version

    def since(self, event: str) -> int:
        """Return the version."""
        known = max(self._all, self._names.get(event, 0))
        if self._patterns:
            matched = [v for p, v in self._patterns.items() if v > known and matches(p, event)]
            known = max(known, *matched, 0)
        return known

    def clear(self) -> None:
        """Forget all: no pin holds an older registry."""
        self._names.clear()
        self._patterns.clear()
        self._all = 0


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

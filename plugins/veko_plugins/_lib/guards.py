"""Guards: plugins whose handlers decide what may pass.

A plugin guards while one of its handlers is live on an event that fails closed (`request:start`,
`websocket:connect`, `route:create`, and what plugins declare so) and does not only observe it.
Nobody declares it: it follows from what the plugin has registered.

Cost: a walk over the handlers of those events; not for hot paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from veko import Kernel, PluginRecord

__all__ = ["GUARDED", "all_guards", "guards", "unrequired"]

GUARDED: Final = ("request:start", "websocket:connect", "route:create")
"""Events of Veko that fail closed, for checks without a kernel that declares them."""


def guards(kernel: Kernel, record: PluginRecord) -> bool:
    """Tell whether a plugin's handlers decide what may pass; one that is off guards nothing."""
    current = record.current
    return current is not None and any(owner is current for _event, owner in _deciding(kernel))


def all_guards(kernel: Kernel) -> dict[str, tuple[str, ...]]:
    """Return the events that each plugin guards, by its name; in one walk for all plugins."""
    found: dict[str, dict[str, None]] = {}
    for event, owner in _deciding(kernel):
        found.setdefault(getattr(owner, "name", str(owner)), {})[event] = None
    return {name: tuple(events) for name, events in found.items()}


def _deciding(kernel: Kernel) -> Iterator[tuple[str, Any]]:
    """Yield each event that fails closed with the owner of each handler that decides there."""
    registry = kernel.bus.registry
    for event in kernel.bus.events:
        for entry in registry.hooks(event.name) if event.fails_closed else ():
            if entry.owner is not None and not entry.value.observes:
                yield event.name, entry.owner


def unrequired(name: str, events: Iterable[str]) -> str:
    """Return the warning about a plugin that guards and is not required.

    Args:
        name: The plugin's name.
        events: The events that it guards.
    """
    return (
        f"{name} decides about {', '.join(events)}, but it is not required: if it does not load, "
        "the application runs without it. Set required = True in its manifest, or observe=True at "
        "hooks that only look."
    )

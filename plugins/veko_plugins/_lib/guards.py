"""Guards: plugins whose handlers decide what may pass.

A plugin guards while one of its handlers is live on an event that fails closed (`request:start`,
`websocket:connect`, `route:create`, and what plugins declare so) and does not only observe it.
Nobody declares it: it follows from what the plugin has registered.

Cost: a walk over the handlers of those events; not for hot paths.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from veko import Kernel, PluginRecord

__all__ = ["GUARDED", "guarded_events", "guards", "unrequired"]

GUARDED: Final = ("request:start", "websocket:connect", "route:create")
"""Events of Veko that fail closed, for checks without a kernel that declares them."""


def guards(kernel: Kernel, record: PluginRecord) -> bool:
    """Tell whether a plugin guards; see `guarded_events`."""
    return bool(guarded_events(kernel, record))


def guarded_events(kernel: Kernel, record: PluginRecord) -> tuple[str, ...]:
    """Return the events at which a plugin's handlers decide what may pass.

    Args:
        kernel: The kernel.
        record: The plugin; one that is off, or not loaded, guards nothing.
    """
    generation, registry = record.current, kernel.bus.registry
    return tuple(
        event.name
        for event in kernel.bus.events
        if event.fails_closed
        and any(
            entry.owner is generation and not entry.value.observes
            for entry in registry.hooks(event.name)
            if entry.owner is not None
        )
    )


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

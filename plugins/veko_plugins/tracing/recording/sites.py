"""Sites: what all spans of one place in the program have in common.

A site is made once, with the plan that calls a handler or emits an event, and is encoded once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from veko import Subscription

__all__ = ["INTERNAL", "RANDOM", "SERVER", "Site", "emission_site", "hook_site", "step_site"]

RANDOM: Final = 40
"""Bits of a span's id that are drawn for each emission; the others number the sites of hooks."""
INTERNAL, SERVER = 1, 2
"""Kinds of spans, by their numbers in OTLP."""
_numbers: Final = itertools.count(1)


class Site:
    """A place in the program that spans come from.

    Attributes:
        name: The name of its spans.
        kind: Their kind.
        attributes: What they have in common; `veko.outcome` is not among it.
        mix: What makes the id of a hook's span out of that of its emission; 0 for a span that is
            not ours.
        limit: The time limit in ns, if there is one.
        spans: How many spans there are of an emission with all of its hooks.
        at_once: Whether it is of emissions whose handlers run side by side.
        wire: Encoded forms; the encoder's own.
    """

    __slots__ = ("at_once", "attributes", "kind", "limit", "mix", "name", "spans", "wire")

    def __init__(
        self,
        name: str,
        attributes: dict[str, Any],
        kind: int = INTERNAL,
        limit: float | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.mix = (next(_numbers) % (2 ** (64 - RANDOM) - 1) + 1) << RANDOM
        self.limit = None if limit is None else int(limit * 1e9)
        self.spans = 1
        self.at_once = False
        self.wire: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"<Site {self.name}>"


def _handler(function: Callable[..., Any]) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _owner(owner: Any) -> dict[str, Any]:
    """The attributes of whose it is; of the host's own there are none."""
    name = getattr(owner, "name", owner)
    if name is None:
        return {}
    attributes: dict[str, Any] = {"veko.plugin": str(name)}
    version = getattr(owner, "version", None)
    if version is not None:
        attributes["veko.plugin.version"] = str(version)
    number = getattr(owner, "number", None) or getattr(owner, "generation", None)
    if isinstance(number, int):
        attributes["veko.plugin.generation"] = number
    return attributes


def hook_site(event: str, subscription: Subscription) -> Site:
    """Make the site of a handler on an event."""
    function = _handler(subscription.handler)
    full = getattr(function, "__qualname__", type(function).__qualname__)
    short = getattr(function, "__name__", type(function).__name__)
    owner = _owner(subscription.owner)
    attributes = {
        "veko.event": event,
        **owner,
        "veko.handler": full,
        "veko.priority": float(subscription.priority),
    }
    plugin = owner.get("veko.plugin")
    name = f"{plugin}.{short}" if plugin else short
    return Site(name, attributes, limit=subscription.timeout if subscription.is_async else None)


def emission_site(event: str, hooks: int = 0, *, at_once: bool = False) -> Site:
    """Make the site of the emissions of an event that so many hooks hear."""
    site = Site(event, {"veko.event": event})
    site.spans += hooks
    site.at_once = at_once
    return site


def step_site(step: str, plugin: Any) -> Site:
    """Make the site of a step of a plugin's life cycle."""
    owner = _owner(plugin)
    return Site(f"{step} {owner.get('veko.plugin', '')}".rstrip(), {"veko.step": step, **owner})

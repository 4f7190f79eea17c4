"""Sites: what all spans that come from one place in the program have in common.

A site is made together with the plan that calls a handler or emits an event, and encoded once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from veko import Subscription
    from veko.extend import Call

__all__ = [
    "ID_BITS",
    "INTERNAL",
    "SERVER",
    "Site",
    "emission_site",
    "hook_site",
    "middleware_site",
    "step_site",
]

ID_BITS: Final = 40
"""Bits of a span's id that are random, drawn once for each emission.

The other 24 bits are the number of a hook's site, 0 for the emission itself. So the ids of all
spans of an emission cost one random number, and OTLP is packed in bulk (`export/packed.py`).
"""
INTERNAL, SERVER = 1, 2
"""Kinds of spans, by their numbers in OTLP."""
_numbers: Final = itertools.count(1)


class Site:
    """A place in the program that spans come from: a handler, an event, a route, a step.

    Attributes:
        name: The name of its spans.
        kind: Their kind.
        attributes: The attributes that its spans have in common, except `veko.outcome`.
        id_part: The bits that turn the id of an emission into that of a hook in it; 0 for spans of
            the SDK.
        limit: The handler's time limit in ns, or `None`.
        spans: The number of spans of an emission with all of its hooks.
        concurrent: Whether the handlers of the emission run side by side.
        encoded: Encoded forms, filled by the encoder.
        usual_chain: The sites of the hooks of its last emission that was encoded.
        usual: The encoded form of that.
    """

    __slots__ = (
        "attributes", "concurrent", "encoded", "id_part", "kind", "limit", "name", "spans",
        "usual", "usual_chain",
    )  # fmt: skip

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
        self.id_part = (next(_numbers) % (2 ** (64 - ID_BITS) - 1) + 1) << ID_BITS
        self.limit = None if limit is None else int(limit * 1e9)
        self.spans = 1
        self.concurrent = False
        self.encoded: dict[Any, Any] = {}
        self.usual: Any = None
        self.usual_chain: list[Site | None] | None = None

    def __repr__(self) -> str:
        return f"<Site {self.name}>"


def _handler(function: Callable[..., Any]) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _owner(owner: Any) -> dict[str, Any]:
    """Return the attributes of a handler's owner; the application's own handlers have none."""
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


def middleware_site(call: Call) -> Site:
    """Make the site of a middleware."""
    owner = _owner(call.owner)
    name = call.event.removeprefix("middleware ")
    plugin = owner.get("veko.plugin")
    shown = f"{plugin}.{name.rpartition('.')[2]}" if plugin else name
    return Site(shown, {**owner, "veko.middleware": name})


def emission_site(event: str, hooks: int = 0, *, concurrent: bool = False) -> Site:
    """Make the site of the emissions of an event that has so many recorded hooks."""
    site = Site(event, {"veko.event": event})
    site.spans += hooks
    site.concurrent = concurrent
    return site


def step_site(step: str, plugin: Any) -> Site:
    """Make the site of a step of a plugin's life cycle."""
    owner = _owner(plugin)
    return Site(f"{step} {owner.get('veko.plugin', '')}".rstrip(), {"veko.step": step, **owner})

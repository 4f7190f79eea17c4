"""Typing errors that nothing refuses: hooks on events that never come, keys that nothing reads.

An event needs no declaration, so a name is suspicious only if it is nearly that of a declared one.
A key is suspicious if the plugin says by `default_config` which keys it reads, and not this one.
"""

from __future__ import annotations

import ast
import difflib
import functools
from collections.abc import Collection, Iterable, Iterator, Mapping

from veko.errors import Fault

from .._lib.versions import did_you_mean

__all__ = ["event_typos", "hooked_events", "key_typos"]

_NEAR = 0.8
"""How near two names are, from 0 to 1, for one to be taken for the other."""


def event_typos(hooked: Iterable[str], known: Collection[str]) -> Iterator[Fault]:
    """Yield a fault for each hooked event that is nearly a declared one.

    Args:
        hooked: Names of events and patterns.
        known: The declared events.
    """
    declared = frozenset(known)
    for event in sorted(set(hooked) - declared):
        # `plugin:<name>:<event>` is another plugin's, which may load later or never.
        if "*" in event or (event.startswith("plugin:") and event.count(":") > 1):
            continue
        near = _nearest(event, declared)
        if near:
            yield Fault("", f"it hooks {event!r}, which is not declared. Did you mean {near[0]!r}?")


# Hundreds of µs, and many plugins hook the same events. Few are kept: each keeps all the names.
@functools.lru_cache(maxsize=32)
def _nearest(event: str, known: frozenset[str]) -> list[str]:
    return difflib.get_close_matches(event, sorted(known), n=1, cutoff=_NEAR)


def key_typos(
    given: Mapping[str, object], default: Mapping[str, object], path: str = ""
) -> Iterator[Fault]:
    """Yield a fault for each configured key that a plugin's `default_config` does not have.

    Args:
        given: What was configured.
        default: The `default_config`; if it is empty, every key may be read.
        path: The keys that lead here, each followed by a dot.
    """
    for key, value in given.items() if default else ():
        if key not in default:
            near = did_you_mean(key, default, count=1)
            message = f"is not a key of its default_config. {near}".rstrip()
            yield Fault(f"{path}{key}", message)
            continue
        below = default[key]
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            yield from key_typos(value, below, f"{path}{key}.")


def hooked_events(source: bytes) -> Iterator[str]:
    """Yield the events that a module hooks by a literal name: `context.hook("request:start")`."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # checking the plugin reports it
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="hook"), args=[ast.Constant(value=str(event)), *_]
            ):
                yield event

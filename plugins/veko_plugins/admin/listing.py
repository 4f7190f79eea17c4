"""What plugins have registered, as the lines that plans show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from veko import Plugin, PluginRecord, Subscription
from veko.extend import DecoratedPlugin

from .documents import Coming
from .rows import entries_of

__all__ = ["KINDS", "Lines", "difference_of", "lines_declared", "lines_of"]

KINDS: Final = ("routes", "hooks", "services", "commands")


class Lines(NamedTuple):
    """Routes as `GET /x`, hooks as `event handler`, services and commands by name."""

    routes: frozenset[str] = frozenset()
    hooks: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    commands: frozenset[str] = frozenset()

    def union(self, other: Lines) -> Lines:
        """Return the lines of both."""
        return Lines(*(one | two for one, two in zip(self, other, strict=True)))


def lines_of(records: Iterable[PluginRecord]) -> Lines:
    """Return what plugins have registered, whether they are on or off."""
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for record in records:
        for entry in entries_of(record):
            if entry.kind == "route":
                found["routes"].add(f"{entry.value.method} {entry.value.path}")
            elif entry.kind in ("hook", "pattern") and isinstance(entry.value, Subscription):
                found["hooks"].add(f"{entry.value.event} {entry.value.label}")
            elif entry.kind in ("service", "command"):
                found[f"{entry.kind}s"].add(str(entry.key))
    return Lines(*(frozenset(found[kind]) for kind in KINDS))


def lines_declared(plugin: Plugin) -> Lines | None:
    """Return what a plugin will register; `None` if only its `load()` knows.

    A plugin that is written with decorators, without a function of its own that runs at loading,
    says all of it.
    """
    if not isinstance(plugin, DecoratedPlugin) or plugin.loads_more:
        return None
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for verb, args, fn in plugin.declarations():
        texts = [str(one) for one in args]
        if verb in ("route", "add_route") and len(texts) >= 2:
            found["routes"].add(f"{texts[0].upper()} {texts[1]}")
        elif verb in ("websocket", "add_websocket") and texts:
            found["routes"].add(f"WEBSOCKET {texts[0]}")
        elif verb == "hook" and texts:
            event = getattr(args[0], "name", texts[0])
            name = getattr(fn, "__qualname__", type(fn).__qualname__)
            found["hooks"].add(f"{event} {plugin.manifest.name}.{name}")
        elif verb in ("command", "add_command") and texts:
            found["commands"].add(texts[0])
        elif verb == "provide" and texts:
            found["services"].add(texts[0])
        elif verb not in ("middleware", "every", "spawn", "transpiler"):
            return None  # another plugin's verb may register anything
    return Lines(*(frozenset(found[kind]) for kind in KINDS))


def difference_of(before: Lines, after: Lines) -> dict[str, Coming]:
    """Return what comes and goes, by kind."""
    return {
        kind: Coming(come=tuple(sorted(new - old)), go=tuple(sorted(old - new)))
        for kind, old, new in zip(KINDS, before, after, strict=True)
    }

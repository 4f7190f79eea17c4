"""Whose code a frame runs: told by the plugins' handlers, else by the plugins' files.

Asked off the hot path only, when something was sampled. Functions are told apart by file and first
line, so that nothing here keeps a plugin's code.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .home import home_of

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["Place", "Whose"]

Place = tuple[str, int]
"""A function: its file and its first line."""


class Whose:
    """The plugins of a kernel, as they are now; core plugins are nobody."""

    def __init__(self, kernel: Kernel) -> None:
        self._handlers: dict[Place, tuple[str, str | None]] = {}
        self._homes = [
            (record.name, home)
            for record in kernel.records()
            if not record.core and (home := home_of(record)) is not None
        ]
        registry = kernel.bus.registry
        for kind in ("hook", "pattern", "route"):
            for entry in registry.entries(kind):
                if entry.owner is None or entry.owner.record.core:
                    continue
                value: Any = entry.value
                place = _place(value.handler)
                if place is None:
                    continue
                what = f"{value.method} {value.path}" if kind == "route" else str(value.event)
                twice = place in self._handlers and self._handlers[place][1] != what
                self._handlers[place] = entry.owner.name, None if twice else what

    def plugin(self, place: Place) -> str | None:
        """Return the name of the plugin that a function belongs to."""
        if place in self._handlers:
            return self._handlers[place][0]
        path = Path(place[0])
        return next((name for name, home in self._homes if path.is_relative_to(home)), None)

    def is_handler(self, place: Place) -> bool:
        """Tell whether a function is registered as a handler."""
        return place in self._handlers

    def event(self, place: Place) -> str | None:
        """Return the event, or method and path, of a handler; `None` if it is one of several."""
        return self._handlers[place][1] if place in self._handlers else None


def _place(fn: Any) -> Place | None:
    while isinstance(fn, functools.partial):
        fn = fn.func
    code = getattr(getattr(fn, "__func__", fn), "__code__", None)
    return None if code is None else (code.co_filename, code.co_firstlineno)

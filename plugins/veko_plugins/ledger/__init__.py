"""The resource ledger: processor time, waiting and memory by plugin and by route; budgets.

See `sampler` for how processor time is measured, `stacks` for whose it is, `budgets` for limits. An
application without a ledger imports the events alone; the rest is imported when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .events import EVENTS, Overrun

if TYPE_CHECKING:
    from ..reports import Budget, PluginUsage, RouteUsage, Usage
    from .plugin import Ledger, Settings

__all__ = [
    "EVENTS",
    "Budget",
    "Ledger",
    "Overrun",
    "PluginUsage",
    "RouteUsage",
    "Settings",
    "Usage",
]

_FILES = {
    "Budget": "..reports",
    "Ledger": ".plugin",
    "PluginUsage": "..reports",
    "RouteUsage": "..reports",
    "Settings": ".plugin",
    "Usage": "..reports",
}

if not TYPE_CHECKING:  # else every misspelled name would pass type checkers

    def __getattr__(name: str) -> Any:
        file = _FILES.get(name)
        if file is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        found = globals()[name] = getattr(import_module(file, __name__), name)
        return found

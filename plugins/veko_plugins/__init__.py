"""Veko's core plugins, and the `PluginManager` that composes them.

The names are imported at their first use: a plugin in a process of its own imports `Response` and
`Context` from here, and should not pay for the manager with time and memory.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

# The kernel needs none of what the extra brings. Looked for, and not imported.
for _name in ("blinker", "nodesemver", "packaging"):
    if find_spec(_name) is None:
        raise ImportError(
            f"veko_plugins needs {_name}, which is not installed: pip install 'veko[manager]'",
            name=_name,
        )

if TYPE_CHECKING:
    from .backup import BackupError, RestoreReport
    from .cache import Cache, CacheError, CacheStats
    from .context import Context, Plugin
    from .devtools import (
        PluginBuilder,
        create_dev_plugin,
        create_plugin_builder,
        create_simple_plugin,
    )
    from .health import BreakerError, PluginHealth
    from .http import CallNext, HTTPError, Request, Response, Route
    from .manager import PluginManager
    from .metrics import CallMetrics, PluginMetrics
    from .options import Options
    from .reports import LoadReport, PluginInfo, Stats
    from .scaffold import ScaffoldError, generate_plugin
    from .state import StateReport
    from .testing import TestResults

__all__ = [
    "BackupError",
    "BreakerError",
    "Cache",
    "CacheError",
    "CacheStats",
    "CallMetrics",
    "CallNext",
    "Context",
    "HTTPError",
    "LoadReport",
    "Options",
    "Plugin",
    "PluginBuilder",
    "PluginHealth",
    "PluginInfo",
    "PluginManager",
    "PluginMetrics",
    "Request",
    "Response",
    "RestoreReport",
    "Route",
    "ScaffoldError",
    "StateReport",
    "Stats",
    "TestResults",
    "create_dev_plugin",
    "create_plugin_builder",
    "create_simple_plugin",
    "generate_plugin",
]

_ROOMS = {
    "backup": ("BackupError", "RestoreReport"),
    "cache": ("Cache", "CacheError", "CacheStats"),
    "context": ("Context", "Plugin"),
    "devtools": (
        "PluginBuilder",
        "create_dev_plugin",
        "create_plugin_builder",
        "create_simple_plugin",
    ),
    "health": ("BreakerError", "PluginHealth"),
    "http": ("CallNext", "HTTPError", "Request", "Response", "Route"),
    "manager": ("PluginManager",),
    "metrics": ("CallMetrics", "PluginMetrics"),
    "options": ("Options",),
    "reports": ("LoadReport", "PluginInfo", "Stats"),
    "scaffold": ("ScaffoldError", "generate_plugin"),
    "state": ("StateReport",),
    "testing": ("TestResults",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

if not TYPE_CHECKING:  # else every misspelled name would pass type checkers

    def __getattr__(name: str) -> Any:
        room = _ROOM_OF.get(name)
        if room is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        found = globals()[name] = getattr(import_module(f".{room}", __name__), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

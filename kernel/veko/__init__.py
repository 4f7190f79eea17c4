"""Veko's kernel: an async priority event bus, and the life cycle of plugins.

What only plugins that extend the manager need is in `veko.extend`.

Each name is imported at its first use, so `import veko` alone takes a few milliseconds, and code
that needs only the version or an error does not import asyncio (`tests/kernel/test_start.py`).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors
    from ._bus.bus import Bus
    from ._bus.events import Event, Origin, Stop
    from ._bus.handles import Handle, Subscription
    from ._life.context import Context, LogRecord
    from ._life.generation import PluginRecord
    from ._life.kernel import Kernel
    from ._life.plugin import Manifest, Plugin, as_plugin
    from ._life.states import State
    from .errors import (
        ConfigError,
        ConflictError,
        DependencyError,
        Fault,
        HookError,
        HookTimeout,
        LoadError,
        LoadTimeout,
        ManifestError,
        NotFoundError,
        OptionError,
        RefusedError,
        RouteError,
        ServiceError,
        StateError,
        StorageError,
        TimeLimitError,
        TransactionError,
        VekoError,
    )

__version__ = "2.0.0"

__all__ = [
    "Bus",
    "ConfigError",
    "ConflictError",
    "Context",
    "DependencyError",
    "Event",
    "Fault",
    "Handle",
    "HookError",
    "HookTimeout",
    "Kernel",
    "LoadError",
    "LoadTimeout",
    "LogRecord",
    "Manifest",
    "ManifestError",
    "NotFoundError",
    "OptionError",
    "Origin",
    "Plugin",
    "PluginRecord",
    "RefusedError",
    "RouteError",
    "ServiceError",
    "State",
    "StateError",
    "Stop",
    "StorageError",
    "Subscription",
    "TimeLimitError",
    "TransactionError",
    "VekoError",
    "as_plugin",
    "errors",
]

_HOMES = {
    "_bus.bus": ("Bus",),
    "_bus.events": ("Event", "Origin", "Stop"),
    "_bus.handles": ("Handle", "Subscription"),
    "_life.context": ("Context", "LogRecord"),
    "_life.generation": ("PluginRecord",),
    "_life.kernel": ("Kernel",),
    "_life.plugin": ("Manifest", "Plugin", "as_plugin"),
    "_life.states": ("State",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # else every misspelled name would pass type checkers

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        if name == "errors":
            return import_module(f"{__name__}.errors")
        home = import_module(f".{_HOME_OF.get(name, 'errors')}", __name__)
        found = globals()[name] = getattr(home, name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

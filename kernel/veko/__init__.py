"""Veko's kernel: an async priority event bus, and the life cycle of plugins.

What only plugins that extend the manager need is in `veko.extend`.
"""

from . import errors
from ._bus.bus import Bus
from ._bus.events import Event, Origin, Stop
from ._bus.handles import Handle, Subscription
from ._life.context import Context, LogRecord
from ._life.generation import PluginRecord
from ._life.kernel import Kernel
from ._life.plugin import Manifest, Plugin, as_plugin
from ._life.states import State
from .errors import *  # noqa: F403 - the list of what is public stands in that file

__version__ = "2.0.0"

__all__ = [
    "Bus",
    "Context",
    "Event",
    "Handle",
    "Kernel",
    "LogRecord",
    "Manifest",
    "Origin",
    "Plugin",
    "PluginRecord",
    "State",
    "Stop",
    "Subscription",
    "as_plugin",
    "errors",
]
__all__ += errors.__all__

"""Veko's kernel: an async priority event bus and the life cycle of plugins. Nothing else."""

from . import errors
from ._bus.bus import Bus
from ._bus.events import Event, Origin, Stop
from ._bus.handles import Handle, Subscription
from ._bus.limits import GRACE, driven
from ._bus.probes import Probe, Snippet
from ._bus.registry import Draft, Entry, Kind, Registry
from ._life.context import Context, LogRecord
from ._life.generation import MOVES, PluginRecord, State
from ._life.kernel import Kernel
from ._life.plugin import Manifest, Plugin, as_plugin
from .errors import *  # noqa: F403 - the list of what is public stands in that file

__version__ = "2.0.0"

__all__ = [
    "GRACE",
    "MOVES",
    "Bus",
    "Context",
    "Draft",
    "Entry",
    "Event",
    "Handle",
    "Kernel",
    "Kind",
    "LogRecord",
    "Manifest",
    "Origin",
    "Plugin",
    "PluginRecord",
    "Probe",
    "Registry",
    "Snippet",
    "State",
    "Stop",
    "Subscription",
    "as_plugin",
    "driven",
    "errors",
]
__all__ += errors.__all__

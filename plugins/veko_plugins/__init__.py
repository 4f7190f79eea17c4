"""Veko's core plugins, and the `PluginManager` that composes them."""

from ._context import Context
from ._infos import LoadReport, PluginInfo, Stats
from .builder import PluginBuilder
from .health import BreakerError, PluginHealth
from .http import Request, Response, Route
from .manager import PluginManager
from .metrics import CallMetrics, PluginMetrics
from .options import Options

__all__ = [
    "BreakerError",
    "CallMetrics",
    "Context",
    "LoadReport",
    "Options",
    "PluginBuilder",
    "PluginHealth",
    "PluginInfo",
    "PluginManager",
    "PluginMetrics",
    "Request",
    "Response",
    "Route",
    "Stats",
]

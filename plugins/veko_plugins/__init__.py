"""Veko's core plugins, and the `PluginManager` that composes them."""

from ._context import Context
from ._infos import LoadReport, PluginInfo, Stats
from .builder import PluginBuilder
from .health import BreakerError, PluginHealth
from .http import CallNext, HTTPError, Request, Response, Route
from .manager import PluginManager
from .metrics import CallMetrics, PluginMetrics
from .options import Options

__all__ = [
    "BreakerError",
    "CallMetrics",
    "CallNext",
    "Context",
    "HTTPError",
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

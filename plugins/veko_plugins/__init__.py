"""Veko's core plugins, and the `PluginManager` that composes them."""

from ._context import Context
from ._infos import LoadReport, PluginInfo, Stats
from .backup import BackupError, RestoreReport
from .builder import PluginBuilder
from .health import BreakerError, PluginHealth
from .http import CallNext, HTTPError, Request, Response, Route
from .manager import PluginManager
from .metrics import CallMetrics, PluginMetrics
from .options import Options
from .state import StateReport

__all__ = [
    "BackupError",
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
    "RestoreReport",
    "Route",
    "StateReport",
    "Stats",
]

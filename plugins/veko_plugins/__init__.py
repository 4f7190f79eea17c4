"""Veko's core plugins, and the `PluginManager` that composes them."""

from .backup import BackupError, RestoreReport
from .context import Context
from .health import BreakerError, PluginHealth
from .http import CallNext, HTTPError, Request, Response, Route
from .manager import PluginBuilder, PluginManager
from .metrics import CallMetrics, PluginMetrics
from .options import Options
from .reports import LoadReport, PluginInfo, Stats
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

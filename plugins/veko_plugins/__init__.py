"""Veko's core plugins, and the `PluginManager` that composes them."""

from ._context import Context
from ._infos import LoadReport, PluginInfo, Stats
from .builder import PluginBuilder
from .http import Request, Response, Route
from .manager import PluginManager
from .options import Options

__all__ = [
    "Context",
    "LoadReport",
    "Options",
    "PluginBuilder",
    "PluginInfo",
    "PluginManager",
    "Request",
    "Response",
    "Route",
    "Stats",
]

"""Veko's core plugins, and the `PluginManager` that composes them."""

try:
    from .backup import BackupError, RestoreReport
    from .context import Context
    from .health import BreakerError, PluginHealth
    from .http import CallNext, HTTPError, Request, Response, Route
    from .manager import PluginBuilder, PluginManager
    from .metrics import CallMetrics, PluginMetrics
    from .options import Options
    from .reports import LoadReport, PluginInfo, Stats
    from .state import StateReport
except ModuleNotFoundError as error:
    # The kernel needs none of what the extra brings. A name of our own is a broken installation.
    if (error.name or "").partition(".")[0] in {"veko", "veko_plugins", "veko_adapters"}:
        raise
    raise ImportError(
        f"veko_plugins needs {error.name}, which is not installed: pip install 'veko[manager]'",
        name=error.name,
    ) from None

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

"""Health: failures counted by plugin, thresholds, and the circuit breaker."""

from .plugin import BreakerError, Health, PluginHealth, RouteOutage

__all__ = ["BreakerError", "Health", "PluginHealth", "RouteOutage"]

"""Health: failures counted by plugin, thresholds, and the circuit breaker."""

from .plugin import BreakerError, Health, PluginHealth

__all__ = ["BreakerError", "Health", "PluginHealth"]

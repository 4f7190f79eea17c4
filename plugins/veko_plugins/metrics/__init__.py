"""Metrics: counts and latencies of every hook call, by plugin."""

from .plugin import OTHER, CallMetrics, Metrics, PluginMetrics

__all__ = ["OTHER", "CallMetrics", "Metrics", "PluginMetrics"]

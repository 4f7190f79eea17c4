"""Metrics: counts and latencies of every hook call, by plugin."""

from .plugin import OTHER, CacheMetrics, CallMetrics, Metrics, PluginMetrics

__all__ = ["OTHER", "CacheMetrics", "CallMetrics", "Metrics", "PluginMetrics"]

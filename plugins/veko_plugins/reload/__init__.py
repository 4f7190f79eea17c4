"""Reloading: files that changed become new generations of their plugins."""

from .plugin import EVENTS, Reload

__all__ = ["EVENTS", "Reload"]

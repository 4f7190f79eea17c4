"""The `PluginManager`, and how it composes the core plugins."""

from .manager import PluginManager

__all__ = ["PluginManager"]

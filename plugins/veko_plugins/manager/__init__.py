"""The `PluginManager`, and how it composes the core plugins."""

from .arguments import ManagerOptions
from .builder import PluginBuilder
from .manager import PluginManager

__all__ = ["ManagerOptions", "PluginBuilder", "PluginManager"]

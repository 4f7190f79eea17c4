"""The `PluginManager`, and how it composes the core plugins."""

from .arguments import ManagerOptions
from .manager import PluginManager

__all__ = ["ManagerOptions", "PluginManager"]

"""Tools for authors of plugins: quick ways to make one in code."""

from .builder import PluginBuilder, create_plugin_builder
from .quick import create_dev_plugin, create_simple_plugin

__all__ = [
    "PluginBuilder",
    "create_dev_plugin",
    "create_plugin_builder",
    "create_simple_plugin",
]

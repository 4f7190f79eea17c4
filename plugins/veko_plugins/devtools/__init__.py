"""Tools for authors of plugins: quick ways to make one in code, and looking into a loaded one."""

from .builder import PluginBuilder, create_plugin_builder
from .debugger import EVENTS, Host, PluginDebugger, PluginInspection
from .injection import Injection, InjectionPoint, injecting
from .quick import create_dev_plugin, create_simple_plugin

__all__ = [
    "EVENTS",
    "Host",
    "Injection",
    "InjectionPoint",
    "PluginBuilder",
    "PluginDebugger",
    "PluginInspection",
    "create_dev_plugin",
    "create_plugin_builder",
    "create_simple_plugin",
    "injecting",
]

"""The loader: imports each generation of a plugin as a module of its own name."""

from .plugin import Loaded, Loader, Source, SourceCache, plugin_of

__all__ = ["Loaded", "Loader", "Source", "SourceCache", "plugin_of"]

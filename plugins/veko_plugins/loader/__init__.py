"""The loader: imports each generation of a plugin as a module of its own name."""

from .plugin import IMPORT, Loaded, Loader, Source, SourceCache, plugin_of

__all__ = ["IMPORT", "Loaded", "Loader", "Source", "SourceCache", "plugin_of"]

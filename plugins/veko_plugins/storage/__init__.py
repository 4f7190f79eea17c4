"""Durable key-value storage for plugins, on SQLite. See `engine` for what it costs and promises."""

from .engine import Durability, Engine
from .namespace import Namespace
from .plugin import Storage
from .queries import Query

__all__ = ["Durability", "Engine", "Namespace", "Query", "Storage"]

"""Durable key-value storage for plugins, on SQLite. See `engine` for costs and promises."""

from .engine import Durability, Engine
from .namespace import Namespace
from .plugin import Storage
from .queries import Query
from .transfers import Transfers

__all__ = ["Durability", "Engine", "Namespace", "Query", "Storage", "Transfers"]

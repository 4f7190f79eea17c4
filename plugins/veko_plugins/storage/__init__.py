"""Durable key-value storage for plugins, on SQLite. See `engine` for costs and promises."""

from .codec import Packed, pack, unpack
from .engine import Durability, Engine
from .namespace import Namespace, Surround
from .plugin import Storage
from .queries import Query
from .transfers import Transfers

__all__ = [
    "Durability",
    "Engine",
    "Namespace",
    "Packed",
    "Query",
    "Storage",
    "Surround",
    "Transfers",
    "pack",
    "unpack",
]

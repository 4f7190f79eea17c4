"""Durable key-value storage for plugins: SQLite, or a server that processes share.

See `engine` for costs and promises of SQLite, `shared` for those of servers, and `port` for what an
adapter to a further server provides.
"""

from .._lib.server_urls import location_of, split_prefix
from .base import BaseEngine
from .changes import Change, Watch
from .codec import Packed, pack, unpack
from .engine import Durability, Engine
from .namespace import ABSENT, Encoded, Namespace, Surround
from .plugin import Storage, is_shared
from .port import (
    HEARTBEAT,
    Changes,
    Contents,
    Lagged,
    Record,
    StorageBackend,
    Unreachable,
    find_backend,
)
from .queries import Query
from .shared import SharedEngine
from .transfers import SharedTransfers, Transfers

__all__ = [
    "ABSENT",
    "HEARTBEAT",
    "BaseEngine",
    "Change",
    "Changes",
    "Contents",
    "Durability",
    "Encoded",
    "Engine",
    "Lagged",
    "Namespace",
    "Packed",
    "Query",
    "Record",
    "SharedEngine",
    "SharedTransfers",
    "Storage",
    "StorageBackend",
    "Surround",
    "Transfers",
    "Unreachable",
    "Watch",
    "find_backend",
    "is_shared",
    "location_of",
    "pack",
    "split_prefix",
    "unpack",
]

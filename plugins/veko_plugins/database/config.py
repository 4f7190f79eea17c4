"""How the database service is configured: `[plugins.database]`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ["DatabaseConfig"]

Seconds = Annotated[float, Meta(gt=0)]


class DatabaseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the database service is configured: `[plugins.database]`. Times are in seconds.

    Attributes:
        pool_size: How many connections are open at most, in each process.
        pool_timeout: How long a session waits for a free connection.
        connect_timeout: How long opening a connection may take.
        query_timeout: How long a statement may run on a server; SQLite has no such limit.
        lock_timeout: How long a statement waits for a lock: in PostgreSQL for that of a row or a
            table, in SQLite for the only writer.
        migration_timeout: How long a plugin waits for the migrations of others, in this process or
            another one, until its own may run.
        idle: A connection of a server that was unused for longer than this is tested before use.
        recycle: A connection older than this is replaced before use.
    """

    pool_size: Annotated[int, Meta(ge=1)] = 10
    pool_timeout: Seconds = 5.0
    connect_timeout: Seconds = 5.0
    query_timeout: Seconds = 30.0
    lock_timeout: Seconds = 5.0
    migration_timeout: Seconds = 20.0
    idle: Annotated[float, Meta(ge=0)] = 1.0
    recycle: Seconds = 1800.0

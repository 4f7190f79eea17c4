"""The storage on a PostgreSQL server: `postgresql://[user:password@]host:port/database`.

The parameter `prefix` (`veko` by default) begins the names of tables and functions; others, such as
`sslmode`, are the client's. The tables are created when they are missing; then the user needs the
right to create in the first schema of its `search_path`. Needs PostgreSQL 12 or later. Through
PgBouncer it works with session pooling only.

Durable means: committed. That survives a power cut, unless the server has `synchronous_commit =
off` or `fsync = off`; with `synchronous_standby_names` the standbys have it too.
"""

from ._backend import PostgresBackend

__all__ = ["PostgresBackend"]

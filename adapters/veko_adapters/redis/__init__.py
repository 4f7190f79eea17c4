"""The storage on a Redis server: `redis://[user:password@]host:port/db`, `rediss://…` with TLS.

The parameter `prefix` (`veko` by default) begins all keys: applications that share a database need
different ones. Needs Redis 6.2 or later, or a server that is compatible; not a Redis Cluster.

Durable means: the server has carried it out. Whether it survives the server's end is the server's
setting: `appendonly yes` with `appendfsync always` loses nothing, `everysec` up to a second. The
server must not evict keys: `maxmemory-policy noeviction`.
"""

from ._backend import RedisBackend

__all__ = ["RedisBackend"]

"""The storage on a NATS server with JetStream: `nats://[user:password@]host:port[,host:port]`.

The entries are in the key-value bucket that the parameter `prefix` names (`veko` by default), which
is created when it is missing; a cluster keeps as many copies as the parameter `replicas` says (1 by
default). Needs NATS 2.12 or later, whose streams take several messages as one transaction.

Durable means: the server (with `replicas`, most of them) has written it to its file. A server's end
loses nothing; a power cut may lose the last two minutes, unless the server has `jetstream {
sync_interval: always }`. A transaction has up to 1,000 entries, a larger one is carried out in
several; single writes need none. A value is smaller than the server's `max_payload`, 1 MiB by
default. Other processes may see the entries of one transaction one after the other.
"""

from ._backend import NatsBackend

__all__ = ["NatsBackend"]

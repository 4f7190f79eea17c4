"""The protocol between a host and a plugin in another process; see the reference page.

It knows nothing of plugins: messages, values, handles and a `Connection` that both sides use.
"""

from .connection import Connection
from .errors import ConnectionLost, GoneError, Overloaded, ProtocolError, RemoteError, Violation
from .handles import Lent, RemoteFunction, RemoteIterator
from .messages import PROTOCOL, Failure
from .packing import JSON_LIMIT, LIMIT
from .values import Kinds, is_plain

__all__ = [
    "JSON_LIMIT",
    "LIMIT",
    "PROTOCOL",
    "Connection",
    "ConnectionLost",
    "Failure",
    "GoneError",
    "Kinds",
    "Lent",
    "Overloaded",
    "ProtocolError",
    "RemoteError",
    "RemoteFunction",
    "RemoteIterator",
    "Violation",
    "is_plain",
]

"""Receives a message and the descriptor that came with it, closed on exec from the first moment.

`socket.recv_fds` takes flags and ignores them.
"""

from __future__ import annotations

import array
import socket
from typing import Final

__all__ = ["receive"]

_ONE: Final = array.array("i").itemsize
_FLAGS: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def receive(sock: socket.socket, size: int) -> tuple[bytes, int | None]:
    """Receive one message; of the descriptors that came with it, the system closes all but one.

    Args:
        sock: A socket of the family `AF_UNIX`.
        size: The most bytes of the message.

    Returns:
        The message, and the descriptor, which the caller closes.
    """
    data, ancillary, _, _ = sock.recvmsg(size, socket.CMSG_LEN(_ONE), _FLAGS)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return data, array.array("i", content[:_ONE])[0]
    return data, None

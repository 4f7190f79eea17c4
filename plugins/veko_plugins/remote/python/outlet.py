"""The way out of a worker that may open no connection itself: the host connects for it.

See `broker` for the host's side. Blocking: it may be called in any thread.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from typing import Final

from ..descriptors import receive

__all__ = ["connect"]

_ANSWER: Final = 8_192


def connect(
    channel: socket.socket, host: str, port: int, *, where: str = "", timeout: float | None = None
) -> socket.socket:
    """Ask the host for a connection.

    Args:
        channel: The worker's end of the channel.
        host: A name or an address.
        port: The port.
        where: The place in the plugin's code that asks.
        timeout: Seconds to wait; the host has a limit of its own.

    Returns:
        The connected socket, blocking.

    Raises:
        PermissionError: The plugin's permissions do not grant it.
        OSError: It cannot be connected to.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            question = json.dumps([host, port, where[:256]]).encode()
            socket.send_fds(channel, [question], [theirs.fileno()])
        ours.settimeout(timeout)
        data, descriptor = receive(ours, _ANSWER)
    if not data:
        raise ConnectionError(errno.ECONNABORTED, "the host is gone")
    number, text = json.loads(data)
    if number == errno.EACCES:
        raise PermissionError(number, text)
    if number or descriptor is None:
        raise OSError(number or errno.EIO, text or os.strerror(number or errno.EIO))
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(True)
    return sock

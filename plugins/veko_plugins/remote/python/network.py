"""Connections of a worker that may open none itself: the host connects and passes the socket.

`socket.connect` and the loop's `sock_connect` keep their meaning: the socket object stays, and its
descriptor becomes that of the socket that the host has connected. Names are looked up by the host
too, so `getaddrinfo` gives them back as they are. Listening, and sockets of a family other than
those of the internet, are Python's own.

Cost: a message to the host and back for each connection, nothing afterwards.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from .outlet import connect

__all__ = ["Network", "WorkerLoop"]

_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)
_SECONDS: Final = 30.0
"""Seconds to wait for the host, which has a limit of its own."""


class Network:
    """The way of a worker's sockets to the host.

    Args:
        channel: The worker's end of the channel to the host's broker.
        where: Returns the line of the plugin's code that runs.
    """

    def __init__(self, channel: socket.socket, where: Callable[[], str]) -> None:
        self._channel = channel
        self._where = where
        self._look_up = socket.getaddrinfo
        self._connect = socket.socket.connect

    def install(self) -> None:
        """Let all sockets of this process connect by the host."""
        network = self

        def connect_(self: socket.socket, address: Any) -> None:
            if not network.carries(self):
                network._connect(self, address)
                return
            network.join(self, address, network._where())

        def connect_ex(self: socket.socket, address: Any) -> int:
            try:
                connect_(self, address)
            except OSError as error:
                if error.errno is None:
                    raise
                return error.errno
            return 0

        socket.socket.connect = connect_  # type: ignore[method-assign,assignment]
        socket.socket.connect_ex = connect_ex  # type: ignore[method-assign,assignment]
        socket.getaddrinfo = self.look_up
        WorkerLoop.network = self

    @staticmethod
    def carries(sock: socket.socket) -> bool:
        """Return whether the host connects a socket."""
        return sock.family in _INTERNET and sock.type == socket.SOCK_STREAM

    def join(self, sock: socket.socket, address: Any, where: str) -> None:
        """Connect a socket; blocks until the host has answered.

        Raises:
            PermissionError: The plugin's permissions do not grant it.
            OSError: It cannot be connected.
        """
        host, port = address[0], address[1]
        timeout = sock.gettimeout() or _SECONDS
        with connect(self._channel, str(host), port, where=where, timeout=timeout) as made:
            for level, option in _OPTIONS:
                made.setsockopt(level, option, sock.getsockopt(level, option))
            os.dup2(made.fileno(), sock.fileno(), inheritable=sock.get_inheritable())
        sock.settimeout(sock.gettimeout())  # that is a property of the descriptor, too

    def look_up(
        self,
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[Any, ...]]:
        """`socket.getaddrinfo` whose addresses are names, for the host to look up."""
        if host is None or flags & (socket.AI_PASSIVE | socket.AI_NUMERICHOST):
            return list(self._look_up(host, port, family, type, proto, flags))
        name = host.decode("ascii") if isinstance(host, bytes) else str(host)
        number = int(port) if port is not None and str(port).isdecimal() else 0
        if port is not None and not str(port).isdecimal():
            number = socket.getservbyname(str(port))
        kind = socket.AF_INET6 if ":" in name else socket.AF_INET
        where: tuple[Any, ...] = (name, number, 0, 0) if ":" in name else (name, number)
        return [(kind, type or socket.SOCK_STREAM, proto or socket.IPPROTO_TCP, "", where)]


_OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
)
"""Options that a client sets before it connects."""


class WorkerLoop(asyncio.SelectorEventLoop):
    """The loop of a worker.

    Attributes:
        network: The way to the host's broker; `None` if the worker connects by itself.
    """

    network: Network | None = None

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a socket that does not block."""
        network = self.network
        if network is None or not network.carries(sock):
            await super().sock_connect(sock, address)
            return
        # The descriptor must not be watched while another takes its number.
        await self.run_in_executor(None, partial(network.join, sock, address, network._where()))

    async def getaddrinfo(self, host: Any, port: Any, **more: Any) -> Any:
        """Look a name up; the host does it if it connects."""
        if self.network is None:
            return await super().getaddrinfo(host, port, **more)
        return self.network.look_up(host, port, **more)

"""The sockets of one generation of a plugin, and how they end with it.

A generation that has sockets owns one task, which does nothing until it is stopped. Then each
socket is closed with 1012, its handler is notified (`SocketClosed` where it waits for a message,
a cancellation elsewhere) and waited for, in bounded time. Only then do `deactivate` and `unload`
run. Cost: an entry in a set for each socket.
"""

from __future__ import annotations

import asyncio
from typing import Final

import anyio

from ..exchange import Target
from .exchange import SocketExchange

__all__ = ["RESTART", "OpenSockets", "SocketTarget"]

RESTART: Final = 1012
"""The close code of a socket whose plugin is unloaded or replaced: try again later."""


class OpenSockets:
    """The open sockets of one generation of a plugin."""

    def __init__(self) -> None:
        self._live: set[SocketExchange] = set()
        self._stopped = False

    async def guard(self) -> None:
        """Wait until the generation is stopped, then end every socket."""
        try:
            await anyio.sleep_forever()
        finally:
            self._stopped = True
            with anyio.CancelScope(shield=True):
                await self.end(RESTART)

    def open(self) -> None:
        """Accept sockets (again): the routes are about to go live."""
        self._stopped = False

    async def end(self, code: int) -> None:
        """Close every socket and wait until its handler has ended.

        Args:
            code: The close code.
        """
        if self._live:
            await asyncio.gather(*(exchange.end(code) for exchange in self._live))

    def add(self, exchange: SocketExchange) -> bool:
        """Add a socket; `False` if the generation is stopped."""
        if not self._stopped:
            self._live.add(exchange)
        return not self._stopped

    def discard(self, exchange: SocketExchange) -> None:
        """Remove a socket that has ended."""
        self._live.discard(exchange)


class SocketTarget(Target):
    """What the routing table leads to for a WebSocket.

    Attributes:
        sockets: The open sockets of the route's generation.
    """

    __slots__ = ("sockets",)

    def __init__(self, target: Target, sockets: OpenSockets) -> None:
        super().__init__(target.route, target.endpoint, target.around)
        self.sockets = sockets

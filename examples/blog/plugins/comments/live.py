"""The readers who have a post open, and what is sent to them."""

from __future__ import annotations

import asyncio

from veko_plugins.http import HTTPError, SocketClosed, WebSocket

__all__ = ["Readers"]

_MOST = 500
_PATIENCE = 5.0


class Readers:
    """The open sockets of this process, by post."""

    def __init__(self) -> None:
        self._sockets: dict[int, set[WebSocket]] = {}

    def add(self, post_id: int, socket: WebSocket) -> None:
        """Add a socket.

        Raises:
            HTTPError: 503: there are too many for this post.
        """
        sockets = self._sockets.setdefault(post_id, set())
        if len(sockets) >= _MOST:
            raise HTTPError(503, "too many readers have this post open")
        sockets.add(socket)

    def remove(self, post_id: int, socket: WebSocket) -> None:
        """Forget a socket."""
        sockets = self._sockets.get(post_id, set())
        sockets.discard(socket)
        if not sockets:
            self._sockets.pop(post_id, None)

    def __contains__(self, post_id: int) -> bool:
        return post_id in self._sockets

    async def send(self, post_id: int, message: object) -> None:
        """Send a message to all readers of a post; one who does not take it is left out."""
        sockets = list(self._sockets.get(post_id, ()))
        await asyncio.gather(*(self._send(post_id, socket, message) for socket in sockets))

    async def _send(self, post_id: int, socket: WebSocket, message: object) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await socket.send(message)
        except (SocketClosed, TimeoutError):
            self.remove(post_id, socket)

"""WebSockets of a worker: the connection stays at the host, its handler runs in the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..http import SocketClosed, WebSocket
from .python.kinds import Marked
from .requests import facts_of, state_value
from .worker import WorkerLost

if TYPE_CHECKING:
    from .life import Life
    from .protocol import RemoteFunction

__all__ = ["socket_handler_of", "socket_value"]


def socket_handler_of(life: Life, fn: RemoteFunction) -> Callable[[WebSocket], Any]:
    """Return the handler of a WebSocket whose function is in a worker."""

    async def handler(socket: WebSocket) -> None:
        if life.down:
            from .life import unavailable

            raise unavailable(life.name)
        try:
            await life.call(fn, socket_value(life, socket))
        except WorkerLost:
            await socket.close(1012, "the plugin is being restarted")

    handler.__name__ = handler.__qualname__ = fn.name or "websocket"
    vars(handler)["remote"] = fn
    return handler


def socket_value(life: Life, socket: WebSocket) -> Marked:
    """Return a WebSocket as it crosses, with functions for what the worker may do with it."""
    verbs = _Verbs(socket, life.is_python)
    functions = {name: getattr(verbs, name) for name in ("accept", "receive", "send", "close")}
    return Marked("socket", _facts(socket) | functions)


def _facts(socket: WebSocket) -> dict[str, Any]:
    return facts_of(socket) | {
        "state": state_value(socket),
        "subprotocols": socket.subprotocols,
        "accepted": socket.accepted,
    }


class _Verbs:
    """What a worker may do with a socket. Scripts see the end as `null`, Python as an error."""

    def __init__(self, socket: WebSocket, raises: bool) -> None:
        self._socket = socket
        self._raises = raises

    async def accept(self, protocol: Any = None, headers: Any = None) -> None:
        """Complete the handshake."""
        pairs = [(str(name), str(value)) for name, value in headers or ()]
        await self._socket.accept(protocol if isinstance(protocol, str) else None, pairs or None)

    async def receive(self) -> str | bytes | None:
        """Return the next message."""
        try:
            return await self._socket.receive()
        except SocketClosed:
            if self._raises:
                raise
            return None

    async def send(self, message: Any = None) -> None:
        """Send a message."""
        await self._socket.send(message)

    async def close(self, code: Any = 1000, reason: Any = "") -> None:
        """Close the socket."""
        await self._socket.close(code if isinstance(code, int) else 1000, str(reason or ""))

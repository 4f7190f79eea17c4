"""WebSockets of a worker: the connection stays at the host, its handler runs in the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..http import SocketClosed, WebSocket
from .python.kinds import Marked
from .requests import facts_of
from .worker import WorkerLost

if TYPE_CHECKING:
    from .life import Life
    from .protocol import RemoteFunction

__all__ = ["socket_handler_of"]


def socket_handler_of(life: Life, fn: RemoteFunction) -> Callable[[WebSocket], Any]:
    """Return the handler of a WebSocket whose function is in a worker."""

    async def handler(socket: WebSocket) -> None:
        if life.down:
            from .life import unavailable

            raise unavailable(life.name)
        verbs = _Verbs(socket, life.is_python)
        names = ("accept", "receive", "send", "close")
        lent = {name: life.worker.connection.lend(getattr(verbs, name), name) for name in names}
        try:
            await life.call(fn, Marked("socket", _facts(socket) | lent))
        except WorkerLost:
            await socket.close(1012, "the plugin is being restarted")
        finally:
            for one in lent.values():
                one.withdraw()

    handler.__name__ = handler.__qualname__ = fn.name or "websocket"
    vars(handler)["remote"] = fn
    return handler


def _facts(socket: WebSocket) -> dict[str, Any]:
    state = {k: v for k, v in socket.state.items() if isinstance(v, str | int | float | bool)}
    return facts_of(socket) | {
        "state": state,
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

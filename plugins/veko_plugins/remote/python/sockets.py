"""WebSockets whose connection is at the host: the real class over functions of the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ...http import SocketClosed, WebSocket
from .errors import across
from .requests import make_scope, received_state

__all__ = ["make_socket"]

_ABNORMAL: Final = 1006


class _Gone(OSError):
    """Raised where a server would raise it: the socket is closed."""


class _Peer:
    """ASGI's receive and send over the functions of a socket at the host."""

    __slots__ = ("_functions",)

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self._functions = functions

    async def receive(self) -> dict[str, Any]:
        """Return the next message, or the disconnect."""
        try:
            message = await across(self._functions["receive"]())
        except SocketClosed as closed:
            return {
                "type": "websocket.disconnect",
                "code": getattr(closed, "code", _ABNORMAL),
                "reason": getattr(closed, "reason", ""),
            }
        key = "text" if isinstance(message, str) else "bytes"
        return {"type": "websocket.receive", key: message}

    async def send(self, message: Mapping[str, Any]) -> None:
        """Pass a message on to the host's socket."""
        kind = message["type"]
        try:
            if kind == "websocket.send":
                text = message.get("text")
                await across(self._functions["send"](message["bytes"] if text is None else text))
            elif kind == "websocket.accept":
                headers = [
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in message.get("headers", ())
                ]
                await across(self._functions["accept"](message.get("subprotocol"), headers))
            elif kind == "websocket.close":
                code, reason = message.get("code", 1000), message.get("reason") or ""
                await across(self._functions["close"](code, reason))
        except SocketClosed as closed:
            raise _Gone(str(closed)) from None


def make_socket(crossed: Mapping[str, Any]) -> WebSocket:
    """Return the WebSocket that arrived."""
    scope = make_scope(crossed, "websocket")
    scope["subprotocols"] = list(crossed.get("subprotocols") or ())
    peer = _Peer({name: crossed[name] for name in ("receive", "send", "accept", "close")})
    socket = WebSocket(scope, peer.receive, peer.send)
    socket.state = received_state(crossed.get("state"))
    socket.accepted = crossed.get("accepted") is True
    return socket

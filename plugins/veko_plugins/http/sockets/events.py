"""The events of WebSockets, and the emitters that their dispatcher binds once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from veko import Event

from ..messages.problem import HTTPError
from ..messages.response import Response
from .websocket import WebSocket

if TYPE_CHECKING:
    from veko import Bus

__all__ = ["EVENTS", "SocketSignals"]

WEBSOCKET_CONNECT: Final = Event(
    "websocket:connect",
    WebSocket,
    stops=Response | HTTPError,
    fails_closed=True,
    doc="A handshake was matched and not yet accepted. Argument: the socket. Closing it, "
    "raising an `HTTPError` or returning a `Response` refuses it.",
)
WEBSOCKET_MESSAGE: Final = Event(
    "websocket:message",
    str | bytes,
    returns=True,
    doc="A message was received. Arguments: the message, the socket. A handler may return "
    "another message.",
)
WEBSOCKET_DISCONNECT: Final = Event(
    "websocket:disconnect",
    WebSocket,
    doc="A socket was closed, by either side or by an error. Argument: the socket. Emitted once "
    "for each `websocket:connect`.",
)
EVENTS: Final = (WEBSOCKET_CONNECT, WEBSOCKET_MESSAGE, WEBSOCKET_DISCONNECT)
"""All of them, in the order in which the catalogue lists them."""


class SocketSignals:
    """The emitters of a WebSocket's events."""

    __slots__ = ("connect", "disconnect", "message")

    def __init__(self, bus: Bus) -> None:
        self.connect = bus.emitter(WEBSOCKET_CONNECT.name)
        self.message = bus.emitter(WEBSOCKET_MESSAGE.name)
        self.disconnect = bus.emitter(WEBSOCKET_DISCONNECT.name)

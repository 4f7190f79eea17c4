"""WebSocket: what the handler of a socket, its hooks and middleware work with.

Cost: a message costs the server's work and one look whether a hook listens; no task. The server
limits the size of messages (uvicorn closes the socket with 1009 above 16 MiB).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final, Self

import msgspec

from veko.errors import RouteError, VekoError

from ..messages.asgi import Message
from ..messages.headers import Headers
from ..messages.problem import HTTPError
from ..messages.response import Response, to_json, to_text
from ..route import SOCKET
from .asgi_socket import ABNORMAL, CLOSE, DENY, ASGISocket

__all__ = ["SocketClosed", "WebSocket"]

_RESERVED: Final = frozenset((1004, 1005, 1006, 1015))
_LONGEST: Final = 123
_STATUSES: Final = frozenset(HTTPStatus)


class SocketClosed(VekoError):
    """The socket was closed by either side: nothing can be received or sent.

    A handler may let it pass; it does not count as a failure.

    Attributes:
        code: The close code (RFC 6455, section 7.4): 1005 if the peer gave none, 1006 if the
            connection was lost.
        reason: The reason that the peer gave.
    """

    counts = False

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"the socket is closed ({code}{f', {reason}' if reason else ''})")
        self.code = code
        self.reason = reason


class WebSocket(ASGISocket):
    """A WebSocket, from its handshake to its end.

    `async for message in socket` yields the messages until the socket is closed.

    Args:
        scope: The ASGI scope.
        receive: ASGI's receive, after `websocket.connect`.
        send: ASGI's send.
        on_message: Called with each message and the socket; returns the message for the handler.
        on_accept: Called when the handshake is done.

    Attributes:
        accepted: Whether the handshake is done.
        closed: Whether it is over: closed by either side, or refused.
        code: The close code; `None` while it is open.
        reason: The reason that came with the close code.
    """

    __slots__ = ()

    @property
    def method(self) -> str:
        """`WEBSOCKET`, the method of its route."""
        return SOCKET

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, the preferred one first."""
        return list(self.scope.get("subprotocols", ()))

    async def accept(
        self,
        subprotocol: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> None:
        """Complete the handshake. The first `receive` or `send` does it too; may be called twice.

        Args:
            subprotocol: One of those that the client offers.
            headers: Headers of the response.

        Raises:
            SocketClosed: The socket is closed.
            RouteError: The client does not offer that subprotocol.
            ValueError: The name or value of a header is not valid.
        """
        if self.accepted:
            return
        if subprotocol is not None and subprotocol not in self.subprotocols:
            raise RouteError(
                f"the client does not offer the subprotocol {subprotocol!r}",
                remedy="Choose one of `socket.subprotocols`, or None.",
            )
        raw = Headers.of(headers).raw if headers else []
        await self._put(
            {"type": "websocket.accept", "subprotocol": subprotocol, "headers": raw},
        )

    async def receive(self) -> str | bytes:
        """Wait for the next message: `str` if it is text, `bytes` if it is binary.

        Raises:
            SocketClosed: The socket is closed.
        """
        if not self.accepted:
            await self.accept()
        message = await self._next()
        if message["type"] != "websocket.receive":
            raise SocketClosed(self.code or ABNORMAL, self.reason)
        text: str | None = message.get("text")
        return message["bytes"] if text is None else text

    async def receive_text(self) -> str:
        """Wait for the next message, which must be text.

        Raises:
            SocketClosed: The socket is closed.
            HTTPError: 415 if it is binary; unless caught, it closes the socket with 1003.
        """
        message = await self.receive()
        if not isinstance(message, str):
            raise HTTPError(415, "the message is not text")
        return message

    async def receive_bytes(self) -> bytes:
        """Wait for the next message, which must be binary.

        Raises:
            SocketClosed: The socket is closed.
            HTTPError: 415 if it is text; unless caught, it closes the socket with 1003.
        """
        message = await self.receive()
        if isinstance(message, str):
            raise HTTPError(415, "the message is not binary")
        return message

    async def receive_json(self, type: Any = Any) -> Any:
        """Wait for the next message and decode it as JSON.

        Args:
            type: The type to decode to, any that msgspec knows: a Struct, `list[int]`, ...

        Raises:
            SocketClosed: The socket is closed.
            HTTPError: 400 if it does not fit; unless caught, it closes the socket with 1007.
        """
        message = await self.receive()
        try:
            return msgspec.json.decode(message, type=type)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise HTTPError(400, f"the message does not fit: {error}") from None
        except RecursionError:
            raise HTTPError(400, "the message is JSON nested too deeply") from None

    async def send(self, message: object) -> None:
        """Send `str` as text, `bytes` as binary, and anything else as JSON text.

        Raises:
            SocketClosed: The socket is closed.
            RouteError: The message cannot be encoded.
        """
        if isinstance(message, str):
            await self.send_text(message)
        elif isinstance(message, (bytes, bytearray, memoryview)):
            await self.send_bytes(bytes(message))
        else:
            await self.send_json(message)

    async def send_text(self, text: str) -> None:
        """Send a text message; see `send`."""
        if not self.accepted:
            await self.accept()
        try:
            await self._put({"type": "websocket.send", "text": text})
        except (
            UnicodeEncodeError
        ):  # a lone surrogate; looking for it first would cost every message
            await self._put({"type": "websocket.send", "text": to_text(text).decode()})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message; see `send`."""
        if not self.accepted:
            await self.accept()
        await self._put({"type": "websocket.send", "bytes": data})

    async def send_json(self, value: object) -> None:
        """Send data as JSON, in a text message; see `send`."""
        await self.send_text(to_json(value).decode())

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket; before it is accepted, refuse it with 403. May be called twice.

        Args:
            code: The close code.
            reason: The reason for the peer, at most 123 bytes in UTF-8.

        Raises:
            ValueError: The code may not be sent, or the reason is too long.
        """
        if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in _RESERVED:
            raise ValueError(
                f"the close code must be 1000 to 1014 or 3000 to 4999, and not reserved, got {code}"
            )
        if len(reason.encode()) > _LONGEST:
            raise ValueError(
                f"the reason must have at most {_LONGEST} bytes, got {len(reason.encode())}"
            )
        if not self.closed:
            try:
                await self.asgi_send({"type": CLOSE, "code": code, "reason": reason})
            except OSError:
                return  # the peer closed it first

    async def deny(self, response: Response) -> None:
        """Refuse the handshake with an HTTP response, or with 403 if the server supports no other.

        Args:
            response: The response.

        Raises:
            RouteError: The handshake is done.
        """
        if self.accepted:
            raise RouteError("the handshake is done", remedy="Close the socket.")
        if self.closed:
            return
        if DENY not in (self.scope.get("extensions") or {}):
            await self.close(1008)
            return
        start, status = response.start(), response.status
        if status not in _STATUSES:  # servers refuse statuses that have no name
            status = status // 100 * 100
        try:
            await self.asgi_send({**start, "type": f"{DENY}.start", "status": status})
            if response.stream is not None:
                async for chunk in response.stream:
                    data = to_text(chunk) if isinstance(chunk, str) else chunk
                    await self._send({"type": f"{DENY}.body", "body": data, "more_body": True})
            await self._send({"type": f"{DENY}.body", "body": response.body or b""})
        except OSError:
            return  # the peer closed it first

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except SocketClosed:
            raise StopAsyncIteration from None

    async def _put(self, message: Message) -> None:
        try:
            await self.asgi_send(message)
        except OSError:
            raise SocketClosed(self.code or ABNORMAL, self.reason) from None

    @property
    def label(self) -> str:
        """What it is and its path, as log records name it."""
        return f"WebSocket {self.path}"

    def __repr__(self) -> str:
        state = f"closed {self.code}" if self.closed else "open" if self.accepted else "waiting"
        return f"<WebSocket {self.path} {state}>"

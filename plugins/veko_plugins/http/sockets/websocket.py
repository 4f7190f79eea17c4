"""WebSocket: what the handler of a socket, its hooks and middleware hold in their hands.

Everything that passes a socket passes here, whether a plain handler uses the verbs or a framework
speaks ASGI (`asgi_receive`, `asgi_send`): so the hooks hear every message, and what is known of
the socket's state is always so. A message costs the server's work, one look at who listens, and
no task; how large it may be is the server's business (uvicorn closes with 1009 past
`ws_max_size`, 16 MiB).
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
from ..messages.response import Response, to_json
from ..route import SOCKET
from .asgi_socket import ABNORMAL, CLOSE, DENY, ASGISocket

__all__ = ["SocketClosed", "WebSocket"]

_RESERVED: Final = frozenset((1004, 1005, 1006, 1015))
_LONGEST: Final = 123
_STATUSES: Final = frozenset(HTTPStatus)


class SocketClosed(VekoError):
    """A socket is closed, by whichever side: nothing comes and nothing can be sent.

    It is nobody's fault if it leaves the handler.

    Attributes:
        code: The close code (RFC 6455, section 7.4); 1005 if the peer gave none, 1006 if the
            connection was lost.
        reason: What the peer said about it.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"the socket is closed ({code}{f', {reason}' if reason else ''})")
        self.code = code
        self.reason = reason


class WebSocket(ASGISocket):
    """A WebSocket, from its handshake to its end.

    `async for message in socket` gives the messages until the peer goes away.

    Args:
        scope: The ASGI scope.
        receive: ASGI's receive, after `websocket.connect`.
        send: ASGI's send.
        heard: Called with each message and the socket; what it returns takes its place.
        accepted: Called once, when the handshake is done.

    Attributes:
        accepted: Whether the handshake is done.
        closed: Whether it is over: closed by either side, or refused.
        code: The close code, once it is closed.
        reason: The reason that came with it.
    """

    __slots__ = ()

    @property
    def method(self) -> str:
        """`WEBSOCKET`, as its route has it."""
        return SOCKET

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, the one it likes best first."""
        return list(self.scope.get("subprotocols", ()))

    async def accept(
        self,
        subprotocol: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> None:
        """Complete the handshake; the first `receive` or `send` does it too. Twice is fine.

        Args:
            subprotocol: One of those that the client offers.
            headers: Headers of the response.

        Raises:
            SocketClosed: It is closed already, or the client went away.
            RouteError: The client does not offer that subprotocol.
            ValueError: A header is not fit to be sent.
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
            SocketClosed: The socket is closed; nothing more will come.
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
            HTTPError: It is binary; left alone, this closes the socket with 1003.
        """
        message = await self.receive()
        if not isinstance(message, str):
            raise HTTPError(415, "the message is not text")
        return message

    async def receive_bytes(self) -> bytes:
        """Wait for the next message, which must be binary.

        Raises:
            SocketClosed: The socket is closed.
            HTTPError: It is text; left alone, this closes the socket with 1003.
        """
        message = await self.receive()
        if isinstance(message, str):
            raise HTTPError(415, "the message is not binary")
        return message

    async def receive_json(self, type: Any = Any) -> Any:
        """Wait for the next message and decode it as JSON.

        Args:
            type: What it must be, as msgspec has it: a Struct, `list[int]`, ...

        Raises:
            SocketClosed: The socket is closed.
            HTTPError: It does not fit; left alone, this closes the socket with 1007.
        """
        message = await self.receive()
        try:
            return msgspec.json.decode(message, type=type)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise HTTPError(400, f"the message does not fit: {error}") from None

    async def send(self, message: object) -> None:
        """Send `str` as text, `bytes` as binary, and anything else as JSON text.

        Raises:
            SocketClosed: The socket is closed.
            RouteError: It cannot be encoded.
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
        await self._put({"type": "websocket.send", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message; see `send`."""
        if not self.accepted:
            await self.accept()
        await self._put({"type": "websocket.send", "bytes": data})

    async def send_json(self, value: object) -> None:
        """Send data as JSON, in a text message; see `send`."""
        await self.send_text(to_json(value).decode())

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket, or, before it is accepted, refuse it (403). Twice is fine.

        Args:
            code: The close code.
            reason: What to say about it, at most 123 bytes.

        Raises:
            ValueError: No endpoint may send this code, or the reason is too long.
        """
        if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in _RESERVED:
            raise ValueError(f"{code} is no close code that can be sent")
        if len(reason.encode()) > _LONGEST:
            raise ValueError(f"the reason is longer than {_LONGEST} bytes")
        if not self.closed:
            try:
                await self.asgi_send({"type": CLOSE, "code": code, "reason": reason})
            except OSError:
                return  # the peer was quicker

    async def deny(self, response: Response) -> None:
        """Refuse the handshake with an HTTP response, or 403 if the server knows no other.

        Raises:
            RouteError: It is too late for that.
        """
        if self.accepted:
            raise RouteError("the handshake is done", remedy="Close the socket.")
        if self.closed:
            return
        if DENY not in (self.scope.get("extensions") or {}):
            await self.close(1008)
            return
        start, status = response.start(), response.status
        if status not in _STATUSES:  # servers know no words for it
            status = status // 100 * 100
        try:
            await self.asgi_send({**start, "type": f"{DENY}.start", "status": status})
            if response.stream is not None:
                async for chunk in response.stream:
                    data = chunk.encode() if isinstance(chunk, str) else chunk
                    await self._send({"type": f"{DENY}.body", "body": data, "more_body": True})
            await self._send({"type": f"{DENY}.body", "body": response.body or b""})
        except OSError:
            return  # the peer did not wait for it

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

    def __repr__(self) -> str:
        state = f"closed {self.code}" if self.closed else "open" if self.accepted else "waiting"
        return f"<WebSocket {self.path} {state}>"

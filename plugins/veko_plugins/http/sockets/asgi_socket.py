"""ASGISocket: a WebSocket as an ASGI application sees it, and the state of the connection.

Every message passes here, whether a plain handler uses `WebSocket`'s methods or a framework speaks
ASGI. So the hooks get every message, and the state is always up to date.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, Final

from ..messages.asgi import ASGI, SLICE, ASGISend, Message, Receive, Scope
from ..messages.connection import Connection

__all__ = ["ABNORMAL", "CLOSE", "DENY", "ASGISocket"]

ABNORMAL: Final = 1006
CLOSE: Final = "websocket.close"
DENY: Final = "websocket.http.response"


class _Gone(OSError):
    """Raised to a framework where `WebSocket`'s methods raise `SocketClosed`."""


class ASGISocket(Connection):
    """The part of a WebSocket that frameworks, middleware and the dispatcher use.

    Args:
        scope: The ASGI scope.
        receive: ASGI's receive, after `websocket.connect`.
        send: ASGI's send.
        on_message: Called with each message and the socket; returns the message for the handler.
        on_accept: Called when the handshake is done.

    Attributes:
        accepted: Whether the handshake is done.
        closed: Whether it is over: closed by either side, or refused.
        left: Whether the client ended it.
        code: The close code; `None` while it is open.
        reason: The reason that came with the close code.
    """

    __slots__ = (
        "__weakref__", "_cuts", "_ended_in", "_on_accept", "_on_message", "_receive", "_send",
        "_started", "_until", "accepted", "closed", "code", "left", "reason",
    )  # fmt: skip

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: ASGISend,
        on_message: Callable[[Any, Any], Awaitable[Any]] | None = None,
        on_accept: Callable[[], None] | None = None,
    ) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._on_message = on_message
        self._on_accept = on_accept
        self._started = False
        self._until = 0.0
        self._ended_in: asyncio.Task[Any] | None = None
        self._cuts = 0
        self.accepted = False
        self.closed = False
        self.left = False
        self.code: int | None = None
        self.reason = ""

    async def asgi_receive(self) -> Message:
        """ASGI's receive, for an endpoint: first `websocket.connect`, then the messages."""
        if not self._started:
            self._started = True
            return {"type": "websocket.connect"}
        return await self._next()

    async def asgi_send(self, message: Message) -> None:
        """ASGI's send, for an endpoint.

        Raises:
            OSError: The socket is closed.
        """
        kind = message["type"]
        if self.closed and not (kind == f"{DENY}.body" and not self.accepted):
            if kind == CLOSE:
                return
            raise _Gone(f"the socket is closed ({self.code})")
        self._note(message)
        try:
            await self._send(message)
        except OSError as error:
            self._over(ABNORMAL)
            self.left = True
            raise _Gone(str(error)) from error
        self._noted(message)
        if monotonic() > self._until:  # neither the server nor the handler must ever wait
            await asyncio.sleep(0)
            self._until = monotonic() + SLICE

    async def _next(self) -> Message:
        """Return the next message as the hooks left it, or the disconnect."""
        if not self.closed:
            try:
                message: Message = await self._receive()
                while message["type"] == "websocket.connect":  # a middleware repeats it
                    message = await self._receive()
            except asyncio.CancelledError:
                # The plugin leaves: a handler that waits here sees a disconnect and may clean up.
                if asyncio.current_task() is not self._ended_in or not self.forgiven():
                    raise
                message = {"type": "websocket.disconnect"}
            else:
                self.left = message["type"] == "websocket.disconnect"
            if message["type"] == "websocket.receive":
                if self._on_message is None:
                    return message
                text = message.get("text")
                value = await self._on_message(message["bytes"] if text is None else text, self)
                if not self.closed:
                    key = "text" if isinstance(value, str) else "bytes"
                    return {"type": "websocket.receive", key: value}
            else:
                self._over(message.get("code", 1005), message.get("reason") or "")
        return {
            "type": "websocket.disconnect",
            "code": self.code or ABNORMAL,
            "reason": self.reason,
        }

    async def through(self, app: ASGI) -> None:
        """Run an ASGI middleware around the rest of the chain; see `follow`."""
        receive, send, connected = self._receive, self._send, False

        async def first() -> Message:
            nonlocal connected
            if connected:
                message: Message = await receive()
                return message
            connected = True
            return {"type": "websocket.connect"}

        async def noted(message: Message) -> None:
            self._note(message)
            await send(message)
            self._noted(message)

        try:
            await app(self.scope, first, noted)
        finally:
            self._receive, self._send = receive, send

    def follow(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Continue with the scope, `receive` and `send` that an ASGI middleware passed on."""
        if scope is not self.scope:
            self.forget()
        self.scope, self._receive, self._send = scope, receive, send

    def _note(self, message: Message) -> None:
        if message["type"] == CLOSE:
            self._over(message.get("code", 1000), message.get("reason") or "")
        elif message["type"] == f"{DENY}.start":
            self._over(1008)

    def _noted(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            self.accepted = True
            if self._on_accept is not None:
                self._on_accept()

    def end(self, task: asyncio.Task[Any], code: int) -> Coroutine[Any, Any, None]:
        """Close the socket from outside, because its plugin is leaving. Nothing else can be sent.

        Args:
            task: The task in which the handler runs.
            code: The close code.

        Returns:
            A coroutine that sends the close frame.
        """
        before, self._ended_in = self.closed, task
        self._over(code)
        return self._send_close(code, before)

    async def _send_close(self, code: int, before: bool) -> None:
        if not before:
            try:
                await self._send({"type": CLOSE, "code": code, "reason": ""})
            except (OSError, RuntimeError):
                return  # the peer or the server closed it first

    def cut(self) -> None:
        """Cancel the handler of a socket that was ended."""
        if self._ended_in is not None:
            self._cuts += 1
            self._ended_in.cancel()

    def forgiven(self) -> bool:
        """Take back the cancellations of `cut`, so that the server's task continues.

        Returns:
            Whether the socket was ended and nothing else cancels the task.
        """
        task, cuts, self._cuts = self._ended_in, self._cuts, 0
        if task is None:
            return False
        for _ in range(cuts):
            task.uncancel()
        return not task.cancelling()

    def _over(self, code: int, reason: str = "") -> None:
        if not self.closed:
            self.closed, self.code, self.reason = True, code, reason

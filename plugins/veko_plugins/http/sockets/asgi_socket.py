"""ASGISocket: a WebSocket as ASGI has it, and what is known of its state.

Whatever passes a socket passes here, from a plain handler's verbs or from a framework that speaks
ASGI: so the hooks hear every message, and the state is always so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from ..messages.asgi import ASGI, ASGISend, Message, Receive, Scope
from ..messages.connection import Connection

__all__ = ["ABNORMAL", "CLOSE", "DENY", "ASGISocket"]

ABNORMAL: Final = 1006
CLOSE: Final = "websocket.close"
DENY: Final = "websocket.http.response"


class _Gone(OSError):
    """What a framework gets where a verb raises `SocketClosed`."""


class ASGISocket(Connection):
    """The side of a WebSocket that its handler does not see.

    Args:
        scope: The ASGI scope.
        receive: ASGI's receive, after `websocket.connect`.
        send: ASGI's send.
        heard: Called with each message and the socket; what it returns takes its place.
        accepted: Called when the handshake is done.

    Attributes:
        accepted: Whether the handshake is done.
        closed: Whether it is over: closed by either side, or refused.
        code: The close code, once it is closed.
        reason: The reason that came with it.
    """

    __slots__ = (
        "__weakref__", "_cuts", "_heard", "_receive", "_send", "_started", "_taken", "_under_way",
        "accepted", "closed", "code", "reason",
    )  # fmt: skip

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: ASGISend,
        heard: Callable[[Any, Any], Awaitable[Any]] | None = None,
        accepted: Callable[[], None] | None = None,
    ) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._heard = heard
        self._under_way = accepted
        self._started = False
        self._taken: asyncio.Task[Any] | None = None
        self._cuts = 0
        self.accepted = False
        self.closed = False
        self.code: int | None = None
        self.reason = ""

    async def asgi_receive(self) -> Message:
        """ASGI's receive, for an endpoint: `websocket.connect` first, then what comes."""
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
            raise _Gone(str(error)) from error
        self._noted(message)

    async def _next(self) -> Message:
        """Return the next message as the hooks left it, or the disconnect."""
        if not self.closed:
            try:
                message: Message = await self._receive()
                while message["type"] == "websocket.connect":  # a middleware began anew
                    message = await self._receive()
            except asyncio.CancelledError:
                # Who waits here when the socket is taken from him is told so, and may tidy up.
                if asyncio.current_task() is not self._taken or not self.forgiven():
                    raise
                message = {"type": "websocket.disconnect"}
            if message["type"] == "websocket.receive":
                if self._heard is None:
                    return message
                text = message.get("text")
                value = await self._heard(message["bytes"] if text is None else text, self)
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
        """Run an ASGI middleware around what is within; see `follow`."""
        receive, send, begun = self._receive, self._send, False

        async def first() -> Message:
            nonlocal begun
            if begun:
                message: Message = await receive()
                return message
            begun = True
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
        """Go on with what an ASGI middleware gave to what is within."""
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
            if self._under_way is not None:
                self._under_way()

    # -- for the routes plugin, which takes a socket from a handler whose plugin leaves

    def taken(self, task: asyncio.Task[Any], code: int) -> Coroutine[Any, Any, None]:
        """Close it from outside: nothing else can be sent; awaiting the answer sends the frame.

        Args:
            task: The task that it lives in.
            code: The close code.
        """
        before, self._taken = self.closed, task
        self._over(code)
        return self._last(code, before)

    async def _last(self, code: int, before: bool) -> None:
        if not before:
            try:
                await self._send({"type": CLOSE, "code": code, "reason": ""})
            except (OSError, RuntimeError):
                return  # the peer, or the server, was quicker

    def cut(self) -> None:
        """Cancel the task of a socket that was taken."""
        if self._taken is not None:
            self._cuts += 1
            self._taken.cancel()

    def forgiven(self) -> bool:
        """Take back what `cut` did; false if somebody else cancels the task, or nobody did."""
        task, cuts, self._cuts = self._taken, self._cuts, 0
        if task is None:
            return False
        for _ in range(cuts):
            task.uncancel()
        return not task.cancelling()

    def _over(self, code: int, reason: str = "") -> None:
        if not self.closed:
            self.closed, self.code, self.reason = True, code, reason

"""One WebSocket from its handshake to its end: the counterpart of a request's `Exchange`.

The handler runs in the server's task. To end the socket from outside, that task is cancelled, and
the cancellation is taken back once the handler has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

from ..exchange import Target
from ..messages.asgi import ASGI, Receive, Scope
from ..messages.pipe import Pipe
from ..messages.response import Response
from ..route import Route
from .websocket import WebSocket

__all__ = ["GRACE", "SocketExchange"]

_log: Final = logging.getLogger("veko.http")
GRACE: Final = 1.0
"""Seconds that a handler may keep swallowing its cancellation before it is closed."""
_TRIES: Final = 3


class Work(Protocol):
    """Reports whether its plugin was replaced meanwhile: a pin.

    Attributes:
        cut: Whether the plugin was replaced and `drain_timeout` has passed.
    """

    cut: bool


class SocketExchange:
    """A WebSocket from its handshake to its end.

    Args:
        socket: The socket.
        target: What answers it; `None` if no route matches.
        work: Holds the registry until the handshake is done.

    Attributes:
        socket: The socket.
        target: What answers it; `None` if no route matches.
        unmatched: The answer if no route matches.
        at: As in `Exchange`.
        raised: As in `Exchange`.
        work: Holds the registry until the handshake is done.
        announced: Whether `websocket:connect` was emitted.
        running: Whether the handler or a middleware around it still runs.
    """

    __slots__ = (
        "_closing",
        "_over",
        "_task",
        "announced",
        "at",
        "raised",
        "running",
        "socket",
        "target",
        "unmatched",
        "work",
    )  # fmt: skip

    def __init__(self, socket: WebSocket, target: Target | None, work: Work) -> None:
        self.socket = socket
        self.work = work
        self.target = target
        self.at: Route | str | None = target.route if target is not None else None
        self.raised: BaseException | None = None
        self.unmatched: Response | None = None
        self.announced = False
        self.running = True
        self._closing: asyncio.Future[None] | None = None
        self._task = asyncio.current_task()
        self._over = asyncio.Event()

    async def pull(self, socket: WebSocket) -> Response:
        """Run the endpoint until it returns."""
        assert self.target is not None
        self.at = self.target.route
        answer: Callable[[Any], Awaitable[Response]] | None
        answer = getattr(self.target.endpoint, "answer", None)
        if answer is not None:
            response: Response = await answer(socket)
            if response.status >= HTTPStatus.MULTIPLE_CHOICES and not socket.accepted:
                return response  # the handshake is refused
        else:
            app = cast("ASGI", self.target.endpoint)
            await app(socket.scope, socket.asgi_receive, socket.asgi_send)
        return Response(status=101 if socket.accepted else 403)

    async def pipe(self, app: ASGI, scope: Scope, receive: Receive) -> Response:
        """Return the response with which an application refuses the handshake."""
        pipe = Pipe(app, scope, receive)
        try:
            response = await pipe.response()
            if response.stream is not None:
                chunks = [c.encode() if isinstance(c, str) else c async for c in response.stream]
                response.body = b"".join(chunks)
            return response
        finally:
            await pipe.close(abort=False)

    async def end(self, code: int) -> None:
        """Close the socket from outside and wait until its handler has ended, in bounded time.

        Args:
            code: The close code.
        """
        task = self._task
        if task is None or self._over.is_set():
            return
        self._closing = asyncio.ensure_future(self.socket.end(task, code))
        for _ in range(_TRIES):
            if self.running:
                self.socket.cut()
            try:
                async with asyncio.timeout(GRACE * 1.05):
                    await self._over.wait()
                    return
            except TimeoutError:
                continue
        _log.warning(
            "the handler of %r ignores its cancellation; it continues without its socket",
            self.socket,
        )

    async def over(self) -> None:
        """Note that the handler has ended, and wait until the close frame is sent."""
        self._over.set()
        if self._closing is not None:
            await asyncio.wait([self._closing], timeout=GRACE)
            self._closing.cancel()

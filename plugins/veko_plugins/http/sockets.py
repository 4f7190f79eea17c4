"""Sockets under way: from the handshake to the end, and how a plugin's end with the plugin.

A handshake is matched like a request, and pins the registry that it began with until it is
accepted: hooks on `websocket:connect`, middleware and endpoint are of one moment, and a plugin
that leaves waits for it. From then on nobody waits for the socket, and what is emitted about it
(`websocket:message`, `websocket:disconnect`) goes to who listens at that time.

The handler runs in the server's task. A generation of a plugin that has sockets holds one task,
which does nothing until it is stopped: then each of its sockets is closed with 1012, its handler
is told (`SocketClosed` where it waits for a message, else cancelled), and waited for, in bounded
time; only then do `deactivate` and `unload` run. A socket costs an entry in a set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from veko import GRACE, Event, driven

from .connection import REQUEST, ROUTE, Receive, Scope, path_of
from .exchange import Target, failed
from .middleware import EXCHANGE, CallNext
from .pipe import Pipe
from .port import ASGI, ASGISend
from .problem import HTTPError
from .response import Response
from .table import HANDSHAKE, Table
from .websocket import SocketClosed, WebSocket

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["EVENTS", "RESTART", "SocketTarget", "Sockets", "Switchboard"]

_log: Final = logging.getLogger("veko.http")
RESTART: Final = 1012
"""The close code of a socket whose plugin leaves or is replaced: come back later."""
_ERROR: Final = 1011
_CODES: Final = {400: 1007, 415: 1003}
"""What an `HTTPError` after the handshake closes with; 1008 for others below 500."""
_TRIES: Final = 3

EVENTS: Final = (
    Event(
        "websocket:connect",
        WebSocket,
        stops=(Response, HTTPError),
        doc="A handshake was matched and not yet accepted. Closing the socket, raising an "
        "`HTTPError` or returning a `Response` refuses it.",
    ),
    Event(
        "websocket:message",
        str | bytes,
        returns=True,
        doc="A message came: the message, which a handler may replace, and the socket.",
    ),
    Event(
        "websocket:disconnect",
        WebSocket,
        doc="A socket is over, whatever ended it; once for each `websocket:connect`.",
    ),
)


class Sockets:
    """The sockets of one generation of a plugin, and the task that ends them with it."""

    def __init__(self) -> None:
        self._live: set[_Visit] = set()
        self._stopped = False

    async def guard(self) -> None:
        """Wait to be stopped, and end every socket then."""
        try:
            await anyio.sleep_forever()
        finally:
            self._stopped = True
            with anyio.CancelScope(shield=True):
                await self.end(RESTART)

    def open(self) -> None:
        """Take sockets in again: the routes are about to go live."""
        self._stopped = False

    async def end(self, code: int) -> None:
        """Close every socket and wait until its handler has ended."""
        if self._live:
            await asyncio.gather(*(visit.end(code) for visit in self._live))

    def add(self, visit: _Visit) -> bool:
        """Take a socket in, unless the plugin is leaving."""
        if not self._stopped:
            self._live.add(visit)
        return not self._stopped

    def discard(self, visit: _Visit) -> None:
        """Forget a socket that is over."""
        self._live.discard(visit)


class SocketTarget(Target):
    """What the routing table leads to for a WebSocket.

    Attributes:
        sockets: Where its sockets are kept.
    """

    __slots__ = ("sockets",)

    def __init__(self, target: Target, sockets: Sockets) -> None:
        super().__init__(target.route, target.endpoint, target.around)
        self.sockets = sockets


class _Visit:
    """A WebSocket on its way: what an `Exchange` is to a request.

    Attributes:
        socket: The socket.
        target: What answers it, `None` where there is no route.
        unmatched: The answer where there is no route.
        at: The plugin whose code is running.
        told: Whether `websocket:connect` was emitted.
        running: Whether the handler, or what stands around it, has not ended.
    """

    __slots__ = (
        "_closing", "_over", "_task", "at", "running", "socket", "target", "told", "unmatched",
    )  # fmt: skip

    def __init__(self, socket: WebSocket, target: SocketTarget | None) -> None:
        self.socket = socket
        self.target = target
        self.at: str | None = target.route.plugin if target is not None else None
        self.unmatched: Response | None = None
        self.told = False
        self.running = True
        self._closing: asyncio.Future[None] | None = None
        self._task = asyncio.current_task()
        self._over = asyncio.Event()

    async def pull(self, socket: WebSocket) -> Response:
        """Let the endpoint have the socket until it returns."""
        assert self.target is not None
        self.at = self.target.route.plugin
        answer: Callable[[Any], Awaitable[Response]] | None
        answer = getattr(self.target.endpoint, "answer", None)
        if answer is not None:
            response: Response = await answer(socket)
            if response.status >= HTTPStatus.MULTIPLE_CHOICES and not socket.accepted:
                return response  # it is refused
        else:
            app = cast("ASGI", self.target.endpoint)
            await app(socket.scope, socket.asgi_receive, socket.asgi_send)
        return Response(status=101 if socket.accepted else 403)

    async def pipe(self, app: ASGI, scope: Scope, receive: Receive) -> Response:
        """Pull the response with which an application refuses the handshake."""
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
        """Close the socket from outside and wait for the end of its handler, in bounded time."""
        task = self._task
        if task is None or self._over.is_set():
            return
        self._closing = asyncio.ensure_future(self.socket.taken(task, code))
        for _ in range(_TRIES):
            if self.running:
                self.socket.cut()
            try:
                async with asyncio.timeout(GRACE * 1.05):
                    await self._over.wait()
                    return
            except TimeoutError:
                continue
        _log.warning("the handler of %r does not end; it goes on without its socket", self.socket)

    async def over(self) -> None:
        """Say that the handler has ended, and let the close frame out."""
        self._over.set()
        if self._closing is not None:
            await asyncio.wait([self._closing], timeout=GRACE)
            self._closing.cancel()


class Switchboard:
    """The WebSocket side of the dispatcher.

    Args:
        kernel: Whose plugins it serves.
        problem: Makes the response that tells an error.
    """

    def __init__(self, kernel: Kernel, problem: Callable[[BaseException], Response]) -> None:
        self._kernel = kernel
        self._problem = problem
        self._connect = kernel.bus.emitter("websocket:connect")
        self._message = kernel.bus.emitter("websocket:message")
        self._disconnect = kernel.bus.emitter("websocket:disconnect")
        self._all = Sockets()

    async def end(self, code: int = RESTART) -> None:
        """Close every socket and wait until its handler has ended."""
        await self._all.end(code)

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Serve one WebSocket to its end."""
        await receive()
        pin = self._kernel.pin()
        with pin as registry:
            table: Table[SocketTarget] | None = registry.view("route")
            around: CallNext | None = registry.view("middleware")
            socket = WebSocket(scope, receive, send, self._message, pin.release)
            found = table.match(HANDSHAKE, path_of(scope)) if table is not None else None
            target = found.value if found is not None else None
            visit = _Visit(socket, target)
            scope[REQUEST], scope[EXCHANGE] = socket, visit
            scope["path_params"] = found.params if found is not None else {}
            scope[ROUTE] = target.route if target is not None else None
            try:
                await self._serve(visit, around)
            finally:
                pin.release()
                if visit.told:
                    await self._disconnect(socket)
                for key in (REQUEST, EXCHANGE, ROUTE):
                    scope.pop(key, None)
                    socket.scope.pop(key, None)

    async def _serve(self, visit: _Visit, around: CallNext | None) -> None:
        socket, target = visit.socket, visit.target
        own = target.sockets if target is not None else None
        if own is not None and not own.add(visit):
            await socket.deny(self._problem(HTTPError(503, headers={"retry-after": "1"})))
            return
        self._all.add(visit)
        try:
            try:
                await driven(self._run(visit, around))
            finally:
                visit.running = False
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and socket.forgiven():
                return
            if not failed(error):
                raise
            await self._failed(visit, error)
        finally:
            socket.forgiven()
            self._all.discard(visit)
            if own is not None:
                own.discard(visit)
            await visit.over()

    async def _run(self, visit: _Visit, around: CallNext | None) -> None:
        socket, target = visit.socket, visit.target
        # Middleware is written for requests, and gets of a socket what both have in common.
        request: Any = socket
        if target is None:
            visit.unmatched = self._problem(HTTPError(404))
            response = await around(request) if around is not None else visit.unmatched
        else:
            visit.told = True
            answer = await self._connect(socket)
            if isinstance(answer, HTTPError):
                raise answer
            if isinstance(answer, Response):
                response = answer
            elif socket.closed:
                return
            elif around is not None:
                response = await around(request)
            elif target.around is not None:
                response = await target.around(request)
            else:
                response = await visit.pull(socket)
        if socket.accepted or response.status < HTTPStatus.OK:
            await socket.close()
        else:
            await socket.deny(response)

    async def _failed(self, visit: _Visit, error: BaseException) -> None:
        """Say who failed, if anybody did, and close the socket."""
        socket = visit.socket
        if socket.closed and isinstance(error, (SocketClosed, OSError)):
            return
        refused = isinstance(error, HTTPError) and error.status < 500
        if not refused:
            await self._kernel.fault(error, plugin=visit.at, origin=socket)
        if not socket.accepted:
            await socket.deny(self._problem(error))
        elif refused and isinstance(error, HTTPError):
            reason = error.detail.encode()[:120].decode(errors="ignore")
            await socket.close(_CODES.get(error.status, 1008), reason)
        else:
            await socket.close(_ERROR)

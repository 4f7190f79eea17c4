"""The WebSocket side of the dispatcher.

A handshake is matched like a request, and pins the registry that it began with until it is
accepted: hooks on `websocket:connect`, middleware and endpoint see the same snapshot, and a plugin
that is unloaded waits for the handshake. After that nothing waits for the socket, and its events
(`websocket:message`, `websocket:disconnect`) go to the hooks that are live at that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from veko.extend import driven

from ..exchange import Blame, failed
from ..messages.asgi import EXCHANGE, REQUEST, ROUTE, ASGISend, Receive, Scope, path_of
from ..messages.problem import RETRY, HTTPError, refusal_of
from ..messages.response import Response
from ..port import CallNext
from ..required import DOWN, out_of_service
from ..table import HANDSHAKE, Table
from .events import SocketSignals
from .exchange import GRACE, SocketExchange
from .open_sockets import RESTART, OpenSockets, SocketTarget
from .websocket import SocketClosed, WebSocket

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["SocketDispatcher"]

_ERROR: Final = 1011
_CODES: Final = {400: 1007, 415: 1003}
"""The close codes of an `HTTPError` after the handshake; 1008 for others below 500."""


class SocketDispatcher:
    """The WebSocket side of the dispatcher.

    Args:
        kernel: The kernel whose plugins it serves.
        problem: Returns the problem response of an error.
        with_outages: Returns a routing table in which the routes that are off answer 503.
    """

    def __init__(
        self,
        kernel: Kernel,
        problem: Callable[[BaseException], Response],
        with_outages: Callable[[Table[Any]], Table[Any]],
    ) -> None:
        self._kernel = kernel
        self._problem = problem
        self._with_outages = with_outages
        self._signals = SocketSignals(kernel.bus)
        self._all = OpenSockets()

    async def end(self, code: int = RESTART) -> None:
        """Close every socket and wait until its handler has ended.

        Args:
            code: The close code.
        """
        await self._all.end(code)

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Serve one WebSocket to its end."""
        await receive()
        pin = self._kernel.pin_live()
        with pin as registry:
            table: Table[Any] | None = registry.view("route")
            around: CallNext | None = registry.view("middleware")
            down = registry.view(DOWN)
            if down:
                table = around = None
            elif table is not None:
                table = self._with_outages(table)
            socket = WebSocket(scope, receive, send, self._signals.message, pin.release)
            found = table.match(HANDSHAKE, path_of(scope)) if table is not None else None
            target: SocketTarget | None = found.value if found is not None else None
            exchange = SocketExchange(socket, target, pin)
            if target is None:
                exchange.unmatched = self._problem(out_of_service() if down else HTTPError(404))
            pin.owner = target.route.plugin if target is not None else None
            scope[REQUEST], scope[EXCHANGE] = socket, exchange
            scope["path_params"] = found.params if found is not None else {}
            scope[ROUTE] = target.route if target is not None else None
            try:
                await self._serve(exchange, target.sockets if target is not None else None, around)
            finally:
                pin.release()
                if exchange.announced:
                    await self._signals.disconnect(socket)
                for key in (REQUEST, EXCHANGE, ROUTE):
                    scope.pop(key, None)
                    socket.scope.pop(key, None)

    async def _serve(
        self, exchange: SocketExchange, own: OpenSockets | None, around: CallNext | None
    ) -> None:
        socket = exchange.socket
        if own is not None and not own.add(exchange):
            await socket.deny(self._problem(_outdated()))
            return
        self._all.add(exchange)
        try:
            try:
                await driven(self._run(exchange, around), GRACE)
            finally:
                exchange.running = False
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and socket.forgiven():
                return
            if not failed(error):
                raise
            if exchange.work.cut:  # its generation was replaced while the handshake lasted
                error = _outdated()
            await self._failed(exchange, error)
        finally:
            socket.forgiven()
            self._all.discard(exchange)
            if own is not None:
                own.discard(exchange)
            await exchange.over()

    async def _run(self, exchange: SocketExchange, around: CallNext | None) -> None:
        socket, target = exchange.socket, exchange.target
        # Middleware is written for requests; a socket has the attributes that both share.
        request: Any = socket
        if target is None:
            unmatched = exchange.unmatched
            assert unmatched is not None
            response = await around(request) if around is not None else unmatched
        else:
            exchange.announced = True
            try:
                answer = await self._signals.connect(socket)
            except HTTPError as refusal:
                answer = refusal
            except Exception as error:
                # The bus has reported it, and counted it against the hook's plugin.
                if socket.accepted or socket.closed:
                    await socket.close(_ERROR)
                    return
                answer = self._problem(refusal_of(error))
            if isinstance(answer, HTTPError):
                if socket.accepted:
                    raise answer
                answer = self._problem(answer)  # a refusal is no failure, whatever its status
            if isinstance(answer, Response):
                response = answer
            elif socket.closed:
                return
            elif around is not None:
                response = await around(request)
            elif target.around is not None:
                response = await target.around(request)
            else:
                response = await exchange.pull(socket)
        if socket.accepted or response.status < HTTPStatus.OK:
            await socket.close()
        else:
            await socket.deny(response)

    async def _failed(self, exchange: SocketExchange, error: BaseException) -> None:
        """Report an error, if it is a failure, and close the socket."""
        socket = exchange.socket
        if socket.closed and isinstance(error, (SocketClosed, OSError)):
            return
        refused = isinstance(error, HTTPError) and (error.status < 500 or exchange.work.cut)
        if not refused:
            plugin, part = Blame.of(exchange.at)
            await self._kernel.fault(
                error, plugin=plugin, origin=socket, part=part, counted=not socket.left
            )
        if not socket.accepted:
            await socket.deny(self._problem(error))
        elif refused and isinstance(error, HTTPError):
            reason = error.detail.encode()[:120].decode(errors="ignore")
            await socket.close(_CODES.get(error.status, 1008), reason)
        else:
            await socket.close(_ERROR)


def _outdated() -> HTTPError:
    return HTTPError(503, "The plugin is being replaced or unloaded.", headers=RETRY)

"""What the host calls of the plugin: its handlers, WebSocket handlers and middlewares, one by one.

Each is a function that takes what crosses the border, gives the plugin's code what it gets in
process, and answers with what crosses back. What the plugin's code raises is raised: the host's own
hooks, problem responses and counts decide about it.

Cost: a request to a handler builds the request, its exchange and the response; nothing is read or
copied that the code does not ask for.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from veko.extend import Entry

from ...http import (
    EXCHANGE,
    REQUEST,
    ROUTE,
    SOCKET,
    Exchange,
    Middleware,
    Request,
    Response,
    Route,
    Signals,
    SocketExchange,
    Table,
    Target,
    WebSocket,
    compose,
)
from ..protocol import RemoteIterator
from .errors import across
from .failures import Ending, contained, with_state
from .requests import ended, from_response, sent_state, to_response

if TYPE_CHECKING:
    from veko import Context, Kernel

__all__ = ["Calls", "Crossing", "name_of"]

_NEXT: Final = "veko.remote.next"
"""The scope's key of the function of the host that stands for what a middleware wraps."""
_NO_ROUTES: Final[Table[Target]] = Table()
Crossing = Any
"""A value that can cross the border."""
Called = Callable[..., Awaitable[Crossing]]
"""A function that the host calls."""


class _Work:
    """Stands for the pin of a socket's exchange: the host holds its own."""

    cut = False


class Calls:
    """Makes the functions that the host calls.

    Args:
        kernel: The worker's kernel.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._signals = Signals(kernel.bus)
        self._version = -1
        self._targets: dict[tuple[str, str], Target] = {}

    # -- routes and sockets

    def route(self, entry: Entry) -> Called:
        """Return the function of a route's handler.

        It takes a request and returns status, headers, body and state. That of a WebSocket takes a
        socket and returns `None`, or status, headers and body if the handshake is refused.
        """
        route: Route = entry.value
        return self._handler(route, lambda: self._live(route))

    def compiled(self, route: Route, context: Context) -> Called:
        """Return the function of a handler that a hook gave to a route of any plugin."""
        adapter = self._kernel.use("http").adapter
        target = Target(route, adapter.compile(context, [route])[0])
        return self._handler(route, lambda: target)

    def _handler(self, route: Route, target: Callable[[], Target]) -> Called:
        async def answer(request: Request) -> Crossing:
            exchange = self.exchange(request, target())
            return await self._answer(request, exchange, exchange.pull)

        async def serve(socket: WebSocket) -> Crossing:
            exchange = SocketExchange(socket, target(), _Work())
            return await _serve(socket, exchange, exchange.pull)

        return _named(serve if route.method == SOCKET else answer, route.handler)

    def _live(self, route: Route) -> Target:
        registry = self._kernel.bus.live.registry
        if self._version != registry.version:
            table: Table[Target] = registry.view("route") or _NO_ROUTES
            self._targets |= {(one.route.method, one.route.path): one for one in table}
            self._version = registry.version
        return self._targets[route.method, route.path]

    def exchange(self, request: Request, target: Target | None) -> Exchange:
        """Return a new exchange of a request, which is in its scope as it is in process."""
        exchange = Exchange(self._signals, request, target, ended, _never, _release)
        scope = request.scope
        scope[REQUEST], scope[EXCHANGE] = request, exchange
        if target is not None:
            scope[ROUTE] = target.route
        return exchange

    @staticmethod
    async def _answer(
        request: Request, exchange: Exchange, run: Callable[[Request], Awaitable[Response]]
    ) -> Crossing:
        try:
            response = await run(request)
        except Exception as error:
            with_state(error, request.state)
            raise
        if response.stream is not None and not isinstance(response.stream, RemoteIterator):
            response.stream = _stream(response.stream, exchange)
        elif exchange.pipes:  # an ASGI application has pushed it
            await exchange.close(abort=False)
        return *from_response(response), sent_state(request.state)

    # -- middleware

    def middleware(self, fn: Middleware, owner: Any) -> Called:
        """Return the function of a middleware.

        Args:
            fn: The middleware.
            owner: What owns it: anything with a `name`.
        """
        run = compose([(fn, owner)], _call_next, self._kernel.bus)

        async def around(subject: Request | WebSocket, following: Called) -> Crossing:
            subject.scope[_NEXT] = following
            if isinstance(subject, WebSocket):
                return await _serve(subject, SocketExchange(subject, None, _Work()), run)
            return await self._answer(subject, self.exchange(subject, None), run)

        return _named(around, fn)


async def _call_next(request: Any) -> Response:
    """Return the response of what a middleware wraps, which is at the host."""
    following: Called = request.scope[_NEXT]
    answer = await across(following([sent_state(request.state), None]))
    if answer is None:  # a socket was served
        return Response(status=101 if request.accepted else 403)
    if isinstance(answer, Response):
        return answer
    if isinstance(answer, Mapping) and isinstance(answer.get("state"), dict):
        request.state.update(answer["state"])
    return to_response(answer)


async def _serve(
    socket: WebSocket, exchange: SocketExchange, run: Callable[[Any], Awaitable[Response]]
) -> Crossing:
    scope = socket.scope
    scope[REQUEST], scope[EXCHANGE] = socket, exchange
    if exchange.target is not None:
        scope[ROUTE] = exchange.target.route
    response = await run(socket)
    if socket.accepted or socket.closed or response.status < 200:
        return None
    return from_response(response)


async def _stream(stream: AsyncIterator[Any], exchange: Exchange) -> AsyncIterator[Any]:
    """Pass a stream on, and end what makes it afterwards."""
    abort = True
    try:
        async for chunk in stream:
            yield chunk
        abort = False
    except (SystemExit, KeyboardInterrupt) as error:
        raise Ending from error
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
        if exchange.pipes:
            await exchange.close(abort=abort)


async def _never(message: object) -> None:
    raise RuntimeError(f"nothing is sent here: {message!r}")


def _release() -> None:
    """Let go of nothing: the host holds its own registry."""


def name_of(fn: object) -> str:
    """Return the name of a function, for the host's messages."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))


def _named(call: Callable[..., Any], fn: object) -> Called:
    call.__qualname__ = name_of(fn)
    made = contained(call)
    vars(made)["own"] = fn  # when it comes back it is the plugin's function again
    return made

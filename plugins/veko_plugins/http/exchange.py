"""An exchange: one request and its response, from the match to the last byte.

It is the `send` that endpoints get. A complete response, or a `Response` called with it, passes the
hooks and is sent. Of a stream only the start is held back, until the first chunk comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from veko.errors import RouteError
from veko.extend import unheard

from .messages.asgi import ASGI, EXCHANGE, SLICE, ASGISend, Message, Receive, Scope
from .messages.disconnect import ClientGone, Watch, while_connected
from .messages.pipe import Pipe
from .messages.request import Request
from .messages.response import Response
from .port import CallNext, Endpoint
from .route import Route, part_of

if TYPE_CHECKING:
    from .events import Signals

__all__ = [
    "Blame",
    "Exchange",
    "Target",
    "failed",
    "pull_response",
    "run_route",
    "run_target",
    "scope_for",
]

_BODY = "http.response.body"


def failed(error: BaseException) -> bool:
    """Return whether an error is a failure of the code that raised it.

    A cancellation is a failure only if this task is not the one being cancelled. The closing of the
    coroutine that catches the error is none: that raises a `GeneratorExit` in its own frame, a
    handler's own comes from one below. `KeyboardInterrupt` is one: it would end the request alone,
    and nobody would be named (test_an_application_goes_on_or_ends_in_order_and_names_the_plugin).
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    if isinstance(error, GeneratorExit):
        trace = error.__traceback__
        return trace is not None and trace.tb_next is not None
    return True


class Blame(NamedTuple):
    """What a failure is counted against.

    Attributes:
        plugin: The name of the plugin.
        part: Its route; `None` for the plugin as a whole.
    """

    plugin: str | None
    part: str | None

    @classmethod
    def of(cls, at: Route | str | None) -> Blame:
        """Return the blame of a route's handler, or of a plugin's middleware."""
        if isinstance(at, Route):
            return cls(at.plugin, part_of(at))
        return cls(at, None)


class Target:
    """What the routing table leads to: a route and its endpoint.

    Attributes:
        route: The route as it is live.
        endpoint: The endpoint that the adapter compiled.
        around: The endpoint inside the route's own middlewares; `None` if the route has none.
        answer: Returns the route's response; `None` if the endpoint pushes its response.
    """

    __slots__ = ("answer", "around", "endpoint", "route")

    def __init__(self, route: Route, endpoint: Endpoint, around: CallNext | None = None) -> None:
        self.route = route
        self.endpoint = endpoint
        self.around = around
        self.answer: CallNext | None = around or getattr(endpoint, "answer", None)


async def run_target(request: Request) -> Response:
    """Return the response of the endpoint of a request's route: the innermost handler."""
    exchange: Exchange = request.scope[EXCHANGE]
    return await exchange.pull(request)


async def pull_response(app: ASGI, scope: Scope, receive: Receive) -> Response:
    """Return the response of an ASGI application, for a handler that answered with one.

    The application runs in a task that the request waits for, so its streams are not buffered.

    Args:
        app: The application.
        scope: The request's scope, or a copy of it.
        receive: ASGI's receive.
    """
    exchange: Exchange = scope[EXCHANGE]
    return await exchange.pipe(app, scope, receive)


async def run_route(request: Request) -> Response:
    """Return the response of a request's route and its own middlewares: what global ones wrap."""
    exchange: Exchange = request.scope[EXCHANGE]
    if exchange.target is None:
        return exchange.unmatched or Response(status=404)
    if exchange.target.around is not None:
        return await exchange.target.around(request)
    return await exchange.pull(request)


class Exchange:
    """One request and its response.

    Args:
        signals: The emitters of a request's events.
        request: The request.
        target: What answers it; `None` if no route matches.
        receive: The server's receive.
        send: The server's send.
        release: Lets go of the pinned registry; called when a stream starts.

    Attributes:
        signals: The emitters of a request's events.
        request: The request as the hooks left it.
        response: The response, once there is one.
        target: What answers it; `None` if no route matches.
        at: What an error is counted against that is raised now: the route while its handler runs,
            the plugin of a middleware while that runs.
        raised: The error that a middleware got from what it wraps: it is not the middleware's own.
        made: The response that the handler returned to the middleware around it.
        begun: Whether the start of the response was sent.
        sent: Whether all of the response was sent.
        unmatched: The answer if no route matches.
        pipes: The pushing applications that run in tasks of their own.
    """

    # Class defaults instead of slots: a usual request sets few of them.
    response: Response | None = None
    unmatched: Response | None = None
    made: Response | None = None
    raised: BaseException | None = None
    begun = sent = False
    _until = 0.0
    _task: asyncio.Task[Any] | None = None
    _watch: Watch | None = None
    _held: Message | None = None
    _dropped = False
    pipes: list[Pipe] | None = None

    def __init__(
        self,
        signals: Signals,
        request: Request,
        target: Target | None,
        receive: Receive,
        send: ASGISend,
        release: Callable[[], None],
    ) -> None:
        self.request = request
        self.target = target
        self.at: Route | str | None = target.route if target is not None else None
        self.signals = signals
        self._receive = receive
        self._send = send
        self._release = release

    def has_begun(self) -> bool:
        """Return `begun`. A call, because type checkers assume that an attribute stays the same."""
        return self.begun

    def deliver(self, response: Response) -> None:
        """Take a whole response from an endpoint; it is sent when the endpoint has returned."""
        self.response = response

    async def __call__(self, message: Message) -> None:
        """ASGI's send, for endpoints that no middleware wraps."""
        kind = message["type"]
        if kind == "http.response.start":
            self._held = message
            return
        if self._held is not None and kind == _BODY:
            start, self._held = self._held, None
            more = message.get("more_body", False)
            body = None if more else message.get("body", b"")
            response = Response.received(start["status"], start.get("headers", ()), body)
            if not more:
                await self.finish(response)
                return
            await self._begin(response)
        if self._watch is not None and kind == _BODY and not message.get("more_body", False):
            await self._watch.end()  # work after the response needs no client
        if not self._dropped and not (kind == _BODY and self.request.method == "HEAD"):
            await self._out(message)

    async def _out(self, message: Message) -> None:
        """Send a part of a stream. The server may raise `OSError` if the client is gone.

        Neither it nor the code that makes the stream must ever wait. Without a pause they would
        hold the loop, and nobody would hear that the client left
        (`tests/faults/test_http_clients_that_leave.py`).
        """
        if self.request.left:
            raise ClientGone("the client disconnected")
        try:
            await self._send(message)
        except OSError as error:
            raise self._gone(error) from error
        if monotonic() > self._until:
            await asyncio.sleep(0)
            self._until = monotonic() + SLICE

    def _gone(self, error: OSError) -> ClientGone:
        self.request.left = True
        return error if isinstance(error, ClientGone) else ClientGone(str(error))

    async def _begin(self, response: Response) -> None:
        """Start a stream that the endpoint pushes."""
        answer = await self.signals.response_start(response, self.request)
        if answer is not response or answer.body is not None:
            self._dropped = True
            await self.send(answer)
            await self.signals.response_end(answer, self.request)
            return
        self.response, self.begun = response, True
        self._release()
        self._watch = Watch.begin(self.request, self._receive, self._task, shared=True)
        await self._out(response.start())
        if self.request.method == "HEAD":
            await self._out({"type": _BODY, "body": b""})

    async def run(self) -> None:
        """Let the endpoint push its response, where no middleware wraps it."""
        target = self.target
        assert target is not None
        request, app = self.request, cast("ASGI", target.endpoint)
        self._task = asyncio.current_task()
        try:
            await app(scope_for(request), request.receive, self)
        except asyncio.CancelledError:
            if self._watch is not None and self._watch.cancelled():
                raise ClientGone("the client disconnected") from None
            raise
        finally:
            self._task = None
            if self._watch is not None:
                await self._watch.end()
        if not self.begun:
            if self.response is None:
                raise _no_response(target.route)
            await self.finish(self.response)
        elif not self.sent and self.response is not None:
            self.sent = True
            await self.signals.response_end(self.response, request)

    async def pull(self, request: Request) -> Response:
        """Return the endpoint's response, for the middleware around it."""
        target = self.target
        assert target is not None
        self.at = target.route
        answer: CallNext | None = getattr(target.endpoint, "answer", None)
        if answer is not None:
            self.made = made = await answer(request)
            return made
        app = cast("ASGI", target.endpoint)
        self.made = made = await self.pipe(app, scope_for(request), request.receive)
        return made

    def blame(self) -> Blame:
        """Return what an error that was just raised is counted against."""
        made, response = self.made, self.response
        if made is None or response is None or self.target is None:
            return Blame.of(self.at)
        # It is being sent: an error of its stream is the handler's.
        handlers = response is made or (response.stream and response.stream is made.stream)
        return Blame.of(self.target.route if handlers else self.at)

    async def pipe(self, app: ASGI, scope: Scope, receive: Receive) -> Response:
        """Return the response of an application that pushes it."""
        pipe = Pipe(app, scope, receive)
        if self.pipes is None:
            self.pipes = []
        self.pipes.append(pipe)
        return await pipe.response()

    async def finish(self, response: Response) -> None:
        """Send a response through the hooks.

        Raises:
            HTTPError: 413 in place of a framework's 500, if the body was too long.
        """
        if response.status >= 500 and self.request.refused is not None:
            raise self.request.refused
        signals = self.signals
        if signals.response_start.func is not unheard:
            response = await signals.response_start(response, self.request)
        await self.send(response)
        if signals.response_end.func is not unheard:
            await signals.response_end(response, self.request)

    async def send(self, response: Response) -> None:
        """Send a response, without the hooks.

        Raises:
            RouteError: The status does not end a request (it is not 200 to 599); nothing was sent.
        """
        self.response = response
        if not 200 <= response.status <= 599:
            raise RouteError(
                f"a response cannot have the status {response.status!r}",
                remedy="Choose one from 200 to 599.",
            )
        self.begun = True
        if response.stream is not None:
            await self._stream(response)
        else:
            send, method = self._send, self.request.scope["method"]
            try:
                await send(response.start(method))
                await send(response.whole(method))
            except OSError as error:
                raise self._gone(error) from error
        self.sent = True

    async def _stream(self, response: Response) -> None:
        """Send a stream. It may last for hours, so it lets go of the registry first."""
        self._release()
        try:
            async with while_connected(self.request, self._receive):
                await response(self.request.scope, self._receive, self._out)
        finally:
            close = getattr(response.stream, "aclose", None)
            if close is not None:
                await close()

    async def close(self, *, abort: bool) -> None:
        """End what the endpoint left running.

        Args:
            abort: Whether to cancel it instead of waiting for its end.
        """
        try:
            for pipe in self.pipes or ():
                await pipe.close(abort=abort)
        finally:
            self.request.unwrap()


def _no_response(route: Route) -> RouteError:
    return RouteError(
        f"the endpoint of {route.method} {route.path} sent no response", plugin=route.plugin
    )


def scope_for(request: Request) -> Scope:
    """Return the scope for a request's route: a HEAD that a GET route answers becomes a GET."""
    scope, route = request.scope, request.route
    if route is not None and scope["method"] != route.method:
        return {**scope, "method": route.method}
    return scope

"""An exchange: one request and its response, from the match to the last byte.

It is the `send` that endpoints get. A complete response, or a `Response` called with it, goes
through the hooks and out; of a stream only the start is held back, until its first chunk comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from veko.errors import RouteError

from .messages.asgi import ASGI, EXCHANGE, ASGISend, Message, Receive, Scope
from .messages.disconnect import ClientGone, while_connected
from .messages.pipe import Pipe
from .messages.request import Request
from .messages.response import Response
from .port import CallNext, Endpoint
from .route import Route

if TYPE_CHECKING:
    from .events import Signals

__all__ = ["Exchange", "Target", "failed", "pulled", "run_route", "run_target", "scope_for"]

_BODY = "http.response.body"


def failed(error: BaseException) -> bool:
    """Tell whether something is a failure of the code that raised it.

    A cancellation is one where this task is not the one that is being cancelled. What ends the
    process or closes the coroutine is none.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return not isinstance(error, (KeyboardInterrupt, GeneratorExit))


class Target:
    """What the routing table leads to.

    Attributes:
        route: The route as it is live.
        endpoint: What the adapter made of it.
        around: The endpoint behind the route's own middlewares, if it has any.
        answer: What returns the route's response; `None` where the endpoint itself is to push it.
    """

    __slots__ = ("answer", "around", "endpoint", "route")

    def __init__(self, route: Route, endpoint: Endpoint, around: CallNext | None = None) -> None:
        self.route = route
        self.endpoint = endpoint
        self.around = around
        self.answer: CallNext | None = around or getattr(endpoint, "answer", None)


async def run_target(request: Request) -> Response:
    """Run the endpoint of a request's route and pull its response: the innermost handler."""
    exchange: Exchange = request.scope[EXCHANGE]
    return await exchange.pull(request)


async def pulled(app: ASGI, scope: Scope, receive: Receive) -> Response:
    """Turn an ASGI application that a handler answered with into a response.

    It runs in a task that the request waits for, so that what it streams is not buffered.
    """
    exchange: Exchange = scope[EXCHANGE]
    return await exchange.pipe(app, scope, receive)


async def run_route(request: Request) -> Response:
    """Run a request's route with its own middlewares: what global middleware stands around."""
    exchange: Exchange = request.scope[EXCHANGE]
    if exchange.target is None:
        return exchange.unmatched or Response(status=404)
    if exchange.target.around is not None:
        return await exchange.target.around(request)
    return await exchange.pull(request)


class Exchange:
    """One request on its way.

    Attributes:
        request: The request as the hooks left it.
        response: The response, once there is one.
        target: What answers it, `None` where there is no route.
        at: The plugin whose code is running.
        begun: Whether the response is on its way to the client.
        sent: Whether all of it has gone.
        unmatched: The answer where there is no route.
        pipes: The applications that run beside it.
    """

    # Defaults of the class, and no slots: most of them are never set.
    response: Response | None = None
    unmatched: Response | None = None
    begun = sent = False
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
        self.at: str | None = target.route.plugin if target is not None else None
        self._signals = signals
        self._receive = receive
        self._send = send
        self._release = release

    def under_way(self) -> bool:
        """Whether it is too late for another response."""
        return self.begun

    def deliver(self, response: Response) -> None:
        """Take a whole response from an endpoint; it goes out when the endpoint has ended."""
        self.response = response

    async def __call__(self, message: Message) -> None:
        """ASGI's send, as endpoints without middleware get it."""
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
        if not self._dropped and not (kind == _BODY and self.request.method == "HEAD"):
            await self._out(message)

    async def _out(self, message: Message) -> None:
        """Send to the server, which says with an `OSError` that nobody is there any more."""
        try:
            await self._send(message)
        except ClientGone:
            raise
        except OSError as error:
            raise ClientGone(str(error)) from error

    async def _begin(self, response: Response) -> None:
        """Let a stream go out that the endpoint pushes."""
        answer = await self._signals.response_start(response, self.request)
        if answer is not response or answer.body is not None:
            self._dropped = True
            await self.send(answer)
            await self._signals.response_end(answer, self.request)
            return
        self.response, self.begun = response, True
        self._release()
        await self._out(response.start())
        if self.request.method == "HEAD":
            await self._out({"type": _BODY, "body": b""})

    async def run(self) -> None:
        """Let the endpoint push its response, with nothing in between."""
        target = self.target
        assert target is not None
        request, app = self.request, cast("ASGI", target.endpoint)
        await app(scope_for(request), request.receive, self)
        if not self.begun:
            if self.response is None:
                raise _silent(target.route)
            await self.finish(self.response)
        elif not self.sent and self.response is not None:
            self.sent = True
            await self._signals.response_end(self.response, request)

    async def pull(self, request: Request) -> Response:
        """Let the endpoint answer to whoever stands around it."""
        target = self.target
        assert target is not None
        self.at = target.route.plugin
        answer: CallNext | None = getattr(target.endpoint, "answer", None)
        if answer is not None:
            return await answer(request)
        app = cast("ASGI", target.endpoint)
        return await self.pipe(app, scope_for(request), request.receive)

    async def pipe(self, app: ASGI, scope: Scope, receive: Receive) -> Response:
        """Pull the response of an application that pushes it."""
        pipe = Pipe(app, scope, receive)
        if self.pipes is None:
            self.pipes = []
        self.pipes.append(pipe)
        return await pipe.response()

    async def finish(self, response: Response) -> None:
        """Send a response, by way of the hooks."""
        response = await self._signals.response_start(response, self.request)
        await self.send(response)
        await self._signals.response_end(response, self.request)

    async def send(self, response: Response) -> None:
        """Send a response as it is.

        Raises:
            RouteError: Its status is none that ends a request; nothing was sent.
        """
        if not 200 <= response.status <= 599:
            raise RouteError(
                f"a response cannot have the status {response.status!r}",
                remedy="Choose one from 200 to 599.",
            )
        self.response, self.begun = response, True
        if response.stream is not None:
            await self._stream(response)
        else:
            send, method = self._send, self.request.scope["method"]
            try:
                await send(response.start(method))
                await send(response.whole(method))
            except ClientGone:
                raise
            except OSError as error:
                raise ClientGone(str(error)) from error
        self.sent = True

    async def _stream(self, response: Response) -> None:
        """Send a stream. It may last for hours: nobody shall wait for it."""
        self._release()
        try:
            async with while_connected(self.request, self._receive):
                await response(self.request.scope, self._receive, self._out)
        finally:
            close = getattr(response.stream, "aclose", None)
            if close is not None:
                await close()

    async def close(self, *, abort: bool) -> None:
        """End what the endpoint left running."""
        for pipe in self.pipes or ():
            await pipe.close(abort=abort)


def _silent(route: Route) -> RouteError:
    return RouteError(
        f"the endpoint of {route.method} {route.path} sent no response", plugin=route.plugin
    )


def scope_for(request: Request) -> Scope:
    """Return the scope as a request's route has it: a HEAD that GET answers is a GET to it."""
    scope, route = request.scope, request.route
    if route is not None and scope["method"] != route.method:
        return {**scope, "method": route.method}
    return scope

"""An exchange: one request and its response, from the match to the last byte.

It is the `send` that endpoints get. A complete response, or a `Response` called with it, goes
through the hooks and out; of a stream only the start is held back, until its first chunk comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from veko.errors import RouteError

from ._connected import ClientGone, while_connected
from .messages import Message, Receive, Request, Route, Scope
from .middleware import EXCHANGE
from .pipe import Pipe
from .port import ASGI, ASGISend, Endpoint
from .response import Response

if TYPE_CHECKING:
    from .dispatch import Signals

__all__ = ["Exchange", "Target", "failed", "pulled", "run_route", "run_target"]

_BODY = "http.response.body"


def failed(error: BaseException) -> bool:
    """Tell whether something is a failure of the code that raised it.

    A cancellation is one where this task is not the one that is being cancelled.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, (Exception, SystemExit))


class Target:
    """What the routing table leads to.

    Attributes:
        route: The route as it is live.
        endpoint: What the adapter made of it.
        handle: The endpoint behind the route's own middlewares, if it has any.
    """

    __slots__ = ("endpoint", "handle", "route")

    def __init__(
        self,
        route: Route,
        endpoint: Endpoint,
        handle: Callable[[Request], Awaitable[Response]] | None = None,
    ) -> None:
        self.route = route
        self.endpoint = endpoint
        self.handle = handle


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
    if exchange.target.handle is not None:
        return await exchange.target.handle(request)
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
    """

    __slots__ = (
        "_dropped",
        "_held",
        "_pipes",
        "_receive",
        "_release",
        "_send",
        "_signals",
        "at",
        "begun",
        "request",
        "response",
        "sent",
        "target",
        "unmatched",
    )

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
        self.response: Response | None = None
        self.unmatched: Response | None = None
        self.at: str | None = target.route.plugin if target is not None else None
        self.begun = self.sent = False
        self._held: Message | None = None
        self._dropped = False
        self._pipes: list[Pipe] | None = None
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
            await self._deliver(answer)
            return
        self.response, self.begun = response, True
        self._release()
        await self._out(response.start())
        if self.request.method == "HEAD":
            await self._out({"type": _BODY, "body": b""})

    async def run(self) -> None:
        """Let the endpoint answer, with nothing in between."""
        target = self.target
        assert target is not None
        request = self.request
        await target.endpoint(_scope_for(target, request), request.receive, self)
        if self.begun:
            if not self.sent and self.response is not None:
                self.sent = True
                await self._signals.response_end(self.response, request)
        elif self.response is not None:
            await self.finish(self.response)
        else:
            raise RouteError(
                f"the endpoint of {target.route.method} {target.route.path} sent no response",
                plugin=target.route.plugin,
            )

    async def pull(self, request: Request) -> Response:
        """Let the endpoint answer to whoever stands around it."""
        target = self.target
        assert target is not None
        self.at = target.route.plugin
        scope = _scope_for(target, request)
        if target.endpoint.inline:
            box = _Box()
            await target.endpoint(scope, request.receive, box)
            if box.response is None:
                raise RouteError("the endpoint sent no response", plugin=target.route.plugin)
            return box.response
        return await self.pipe(target.endpoint, scope, request.receive)

    async def pipe(self, app: ASGI, scope: Scope, receive: Receive) -> Response:
        """Pull the response of an application that pushes it."""
        pipe = Pipe(app, scope, receive)
        if self._pipes is None:
            self._pipes = []
        self._pipes.append(pipe)
        return await pipe.response()

    async def finish(self, response: Response) -> None:
        """Send a response, by way of the hooks."""
        answer = await self._signals.response_start(response, self.request)
        await self._deliver(answer)

    async def _deliver(self, response: Response) -> None:
        await self.send(response)
        await self._signals.response_end(response, self.request)

    async def send(self, response: Response) -> None:
        """Send a response as it is."""
        self.response, self.begun = response, True
        if response.stream is None:
            await response(self.request.scope, self._receive, self._out)
        else:
            # It may last for hours: nobody shall wait for it.
            self._release()
            try:
                async with while_connected(self.request, self._receive):
                    await response(self.request.scope, self._receive, self._out)
            finally:
                close = getattr(response.stream, "aclose", None)
                if close is not None:
                    await close()
        self.sent = True

    async def close(self, *, abort: bool) -> None:
        """End what the endpoint left running."""
        for pipe in self._pipes or ():
            await pipe.close(abort=abort)


class _Box:
    """The `send` of an endpoint that answers with a `Response`."""

    __slots__ = ("response",)

    def __init__(self) -> None:
        self.response: Response | None = None

    def deliver(self, response: Response) -> None:
        self.response = response

    async def __call__(self, message: Message) -> None:
        raise RouteError(f"an endpoint that is inline sent {message['type']!r}")


def _scope_for(target: Target, request: Request) -> Scope:
    """Return the scope as the route has it: a HEAD that GET answers is a GET to it."""
    scope = request.scope
    if scope["method"] != target.route.method:
        return {**scope, "method": target.route.method}
    return scope

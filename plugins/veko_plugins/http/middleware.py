"""Middleware: functions around functions, made once and called for every request.

`async def middleware(request, call_next)` awaits `call_next(request)` for a `Response` and
returns one. Nothing is buffered: a handler that streams gives a response whose `stream` is still
to be read. An endpoint that pushes ASGI messages is turned round by a pipe of no capacity in a
task of its own; only such endpoints behind middleware pay for that.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from veko.errors import RouteError

from .messages import Message, Receive, Request, Scope
from .port import ASGI
from .response import Response

__all__ = ["EXCHANGE", "CallNext", "Middleware", "Pipe", "compose", "name_of"]

EXCHANGE = "veko.exchange"
"""The key under which a request's `Exchange` lies in the scope."""

CallNext = Callable[[Request], Awaitable[Response]]
Middleware = Callable[[Request, CallNext], Any]


def name_of(fn: object) -> str:
    """Return the name of a function as people know it."""
    return getattr(fn, "__qualname__", None) or repr(fn)


def compose(middlewares: Iterable[tuple[Middleware, str]], inner: CallNext) -> CallNext:
    """Put middlewares around a handler, the first one outermost.

    Args:
        middlewares: Functions with the name of the plugin that each belongs to.
        inner: What the last one calls.
    """
    for middleware, plugin in reversed(tuple(middlewares)):
        inner = _around(middleware, plugin, inner)
    return inner


def _around(middleware: Middleware, plugin: str, inner: CallNext) -> CallNext:
    async def call_next(request: Request) -> Response:
        response = await inner(request)
        request.scope[EXCHANGE].at = plugin
        return response

    async def run(request: Request) -> Response:
        # Who is at work when an error comes up is who is to blame for it.
        request.scope[EXCHANGE].at = plugin
        answer = middleware(request, call_next)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is None:
            raise RouteError(
                f"the middleware {name_of(middleware)} returned None",
                plugin=plugin,
                remedy="Return the response: `return await call_next(request)`.",
            )
        return Response.of(answer)

    return run


class Pipe:
    """An endpoint that pushes, as a response that is pulled."""

    __slots__ = ("_chunks", "_error", "_held", "_ready", "_taken", "_task", "_wanted")

    def __init__(self, app: ASGI, scope: Scope, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        self._held: Message | None = None
        self._ready: asyncio.Future[Response] = loop.create_future()
        self._chunks: asyncio.Queue[bytes | None] | None = None
        self._wanted = asyncio.Event()
        self._taken = False
        self._error: BaseException | None = None
        self._task = asyncio.ensure_future(self._run(app, scope, receive))

    async def _run(self, app: ASGI, scope: Scope, receive: Receive) -> None:
        # Whatever it raises is for those who wait, not for the task: asyncio would end the loop
        # with a SystemExit.
        try:
            await app(scope, receive, self)
            if not self._ready.done():
                raise RouteError("the endpoint ended without a response")
        except asyncio.CancelledError:
            self._ready.cancel()
            raise
        except (Exception, SystemExit) as error:
            if self._ready.done():
                self._error = error
            else:
                self._ready.set_exception(error)
        finally:
            if self._chunks is not None:
                self._chunks.put_nowait(None)

    def deliver(self, response: Response) -> None:
        """Take a response as it is."""
        self._ready.set_result(response)

    async def __call__(self, message: Message) -> None:
        """ASGI's send."""
        if message["type"] == "http.response.start":
            self._held = message
        elif message["type"] == "http.response.body":
            more = message.get("more_body", False)
            if self._held is not None:
                start, self._held = self._held, None
                body = None if more else message.get("body", b"")
                response = Response.received(start["status"], start.get("headers", ()), body)
                if more:
                    self._chunks = asyncio.Queue()
                    response.stream = self._pull(self._chunks)
                self._ready.set_result(response)
                if not more:
                    # What it does after its response is for after that was sent.
                    await self._wanted.wait()
            if self._chunks is not None:
                # No chunk is made before the one before it was asked for.
                await self._wanted.wait()
                self._wanted.clear()
                if data := message.get("body", b""):
                    self._chunks.put_nowait(data)
                else:
                    self._wanted.set()
                if not more:
                    self._chunks.put_nowait(None)

    async def _pull(self, chunks: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
        self._wanted.set()
        while (chunk := await chunks.get()) is not None:
            yield chunk
            self._wanted.set()
        self._taken = True
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    async def response(self) -> Response:
        """Wait for the response; its stream may be still to come."""
        return await asyncio.shield(self._ready)

    async def close(self, *, abort: bool) -> None:
        """Let the endpoint end: what follows its response (background work) is waited for.

        Args:
            abort: Whether to cancel it; so is one whose stream nobody read to its end.
        """
        if abort or (self._chunks is not None and not self._taken):
            self._task.cancel()
        self._wanted.set()
        await asyncio.wait([self._task])
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()
        if self._error is not None:
            raise self._error

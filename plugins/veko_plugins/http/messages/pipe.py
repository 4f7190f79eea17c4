"""The pipe: turns an ASGI application, which pushes messages, into a response to return.

The application runs in a task of its own. Its stream is handed over chunk by chunk, each when the
one before was consumed. Only endpoints that push, inside middleware, pay for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from veko.errors import RouteError

from .asgi import ASGI, Message, Receive, Scope
from .response import Response

__all__ = ["Pipe"]


class Pipe:
    """The `send` of an application that pushes, and the response made of its messages.

    Args:
        app: The application.
        scope: Its scope.
        receive: Its receive.
    """

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
        # Errors go to the code that waits for the response, not to the task: asyncio would stop the
        # loop at a SystemExit.
        try:
            await app(scope, receive, self)
            if not self._ready.done():
                raise RouteError(
                    "the endpoint ended without a response",
                    remedy="Send `http.response.start` and `http.response.body`.",
                )
        except asyncio.CancelledError:
            self._ready.cancel()
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
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
                    # Background work after the response starts when the response was sent.
                    await self._wanted.wait()
            if self._chunks is not None:
                # Back pressure: no chunk is made before the last one was consumed.
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
        """Wait for the response, whose stream may be still to come.

        Raises:
            Exception: What the application raised before its response.
        """
        return await asyncio.shield(self._ready)

    async def close(self, *, abort: bool) -> None:
        """Wait until the application has ended, its background work included.

        Args:
            abort: Whether to cancel it. It is also cancelled if its stream was not read to the end.

        Raises:
            Exception: What the application raised after its response.
        """
        if abort or (self._chunks is not None and not self._taken):
            self._task.cancel()
        self._wanted.set()
        await asyncio.wait([self._task])
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()
        if self._error is not None:
            raise self._error

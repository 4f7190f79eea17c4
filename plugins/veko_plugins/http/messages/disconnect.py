"""Noticing that a client disconnects while its response is being streamed.

Servers announce it through `receive` only, so a task listens there: one for each stream, none for a
response that is sent whole. What arrives of the body meanwhile is kept for its reader, up to `KEPT`
bytes. Beyond that the task waits until some of it is read, so the disconnection of a client that
sends more than anyone reads goes unnoticed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from .asgi import Message, Receive
from .request import Request

__all__ = ["KEPT", "ClientGone", "Watch", "while_connected"]

KEPT: Final = 64 * 1024
"""Bytes of a body that are kept while its response is being streamed."""


class ClientGone(OSError):
    """The client disconnected before it had the whole response. It does not count as an error."""

    counts = False


class _Keeper:
    """A `receive` that keeps the messages that arrive while a task listens."""

    __slots__ = ("_messages", "_news", "_receive", "_room", "_size", "listening")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: deque[Message] = deque()
        self._size = 0
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self.listening = True

    async def listen(self) -> None:
        """Keep messages until the client disconnects."""
        try:
            while True:
                while self._size >= KEPT:
                    self._room.clear()
                    await self._room.wait()
                message: Message = await self._receive()
                self._messages.append(message)
                self._size += len(message.get("body", b""))
                self._news.set()
                if message["type"] == "http.disconnect":
                    return
        finally:
            self.listening = False
            self._news.set()

    async def __call__(self) -> Message:
        """ASGI's receive."""
        while self.listening and not self._messages:
            self._news.clear()
            await self._news.wait()
        if not self._messages:
            last: Message = await self._receive()
            return last
        message = self._messages.popleft()
        self._size -= len(message.get("body", b""))
        self._room.set()
        return message


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Watch:
    """Listens while a response is streamed, and cancels the task that streams it.

    Args:
        request: The request whose response is streamed.
        task: The task.
        listening: Ends when the client disconnects.
    """

    __slots__ = ("_before", "_gone", "_listener", "_request", "_task")

    def __init__(
        self, request: Request, task: asyncio.Task[Any], listening: Coroutine[Any, Any, None]
    ) -> None:
        self._request, self._task = request, task
        self._gone = False
        self._before = task.cancelling()
        self._listener = asyncio.ensure_future(self._listen(listening))

    @classmethod
    def begin(
        cls,
        request: Request,
        receive: Receive,
        task: asyncio.Task[Any] | None,
        *,
        shared: bool = False,
    ) -> Watch | None:
        """Begin to listen.

        Args:
            request: The request whose response is streamed.
            receive: The server's receive.
            task: The task that streams it.
            shared: Whether the code that streams may receive, too.

        Returns:
            The watch; `None` if the body is being read: its reader notices the disconnection.
        """
        alone = request.read and not shared
        keeper = None if alone else request.lend(receive, _Keeper)
        if task is None or not (alone or keeper):
            return None
        return cls(request, task, _disconnected(receive) if keeper is None else keeper.listen())

    async def _listen(self, listening: Coroutine[Any, Any, None]) -> None:
        await listening
        self._gone = self._request.left = True
        self._task.cancel()

    def cancelled(self) -> bool:
        """Return whether the cancellation that the task caught is the watch's, and take it back."""
        return self._gone and self._task.uncancel() <= self._before

    async def end(self) -> None:
        """Stop listening."""
        self._listener.cancel()
        await asyncio.wait([self._listener])


@asynccontextmanager
async def while_connected(request: Request, receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the client disconnects, and raise `ClientGone`.

    If the body is being read, its reader notices the disconnection instead.

    Args:
        request: The request whose response is streamed.
        receive: The server's receive.

    Raises:
        ClientGone: The client disconnected.
    """
    watch = Watch.begin(request, receive, asyncio.current_task())
    if watch is None:
        yield
        return
    try:
        yield
    except asyncio.CancelledError:
        if watch.cancelled():
            raise ClientGone("the client disconnected") from None
        raise
    finally:
        await watch.end()

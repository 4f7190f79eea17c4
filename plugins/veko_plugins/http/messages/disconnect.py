"""Noticing that a client disconnects while its response is being streamed.

Servers announce it through `receive` only, so a task listens there: one for each stream, none for a
response that is sent whole. What arrives of the body meanwhile is kept for its reader, up to `KEPT`
bytes. Beyond that the task waits until some of it is read, so the disconnection of a client that
sends more than anyone reads goes unnoticed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from .asgi import Message, Receive
from .request import Request

__all__ = ["KEPT", "ClientGone", "while_connected"]

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
    task = asyncio.current_task()
    keeper = None if request.read else request.lend(receive, _Keeper)
    if task is None or not (request.read or keeper):
        yield
        return
    gone = False
    before = task.cancelling()

    async def listen() -> None:
        nonlocal gone
        await (_disconnected(receive) if keeper is None else keeper.listen())
        gone = True
        task.cancel()

    listener = asyncio.ensure_future(listen())
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() <= before:
            request.left = True
            raise ClientGone("the client disconnected") from None
        raise
    finally:
        listener.cancel()
        await asyncio.wait([listener])

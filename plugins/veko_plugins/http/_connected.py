"""Noticing that a client goes away while its response is being streamed.

Servers say so to `receive` only, so somebody must listen there: one task a stream, none for a
response that is complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .messages import Receive, Request

__all__ = ["ClientGone", "is_gone", "while_connected"]


class ClientGone(OSError):
    """The client went away before it had the whole response."""


def is_gone(error: BaseException) -> bool:
    """Tell whether nothing failed but that the client went away."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_gone(part) for part in error.exceptions)
    return isinstance(error, ClientGone)


@asynccontextmanager
async def while_connected(request: Request, receive: Receive) -> AsyncIterator[None]:
    """Cancel what is inside when the client goes away, and then raise `ClientGone`.

    While a body is still to be read nobody listens here: whoever reads it will notice.
    """
    task = asyncio.current_task()
    if task is None or not request.read:
        yield
        return
    gone = False
    before = task.cancelling()

    async def listen() -> None:
        nonlocal gone
        message = await receive()
        while message["type"] != "http.disconnect":
            message = await receive()
        gone = True
        task.cancel()

    listener = asyncio.ensure_future(listen())
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() <= before:
            raise ClientGone("the client went away") from None
        raise
    finally:
        listener.cancel()
        await asyncio.wait([listener])

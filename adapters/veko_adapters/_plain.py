"""The endpoint of a plain handler, without a framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from veko_plugins.http import Response

__all__ = ["Plain"]


class Plain:
    """An endpoint that returns what a handler returns, as a response.

    Args:
        call: The bound handler: an async function of the request or the WebSocket.

    Attributes:
        answer: Answers a request. A function, not a method: one frame less for each request.
    """

    __slots__ = ("answer",)

    def __init__(self, call: Callable[[Any], Awaitable[Any]]) -> None:
        async def answer(request: Any, /) -> Response:
            return Response.of(await call(request))

        self.answer: Callable[[Any], Coroutine[Any, Any, Response]] = answer

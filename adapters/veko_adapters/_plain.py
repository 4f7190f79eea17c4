"""The endpoint of a plain handler, where no framework has a say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from veko_plugins.http import Response

__all__ = ["Plain"]


class Plain:
    """An endpoint that answers with what a handler returns.

    Args:
        call: The handler, bound: an async function of the request, or of the WebSocket.

    Attributes:
        answer: Answers a request. A function, not a method: that is one frame less.
    """

    __slots__ = ("answer",)

    def __init__(self, call: Callable[[Any], Awaitable[Any]]) -> None:
        async def answer(request: Any, /) -> Response:
            return Response.of(await call(request))

        self.answer: Callable[[Any], Coroutine[Any, Any, Response]] = answer

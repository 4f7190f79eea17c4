"""The endpoint of a plain handler, without a framework."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from veko_plugins.http import Response

__all__ = ["Plain"]


class Plain:
    """An endpoint that returns what a handler returns, as a response.

    Args:
        answer: The bound handler: an async function of the request that returns a response.

    Attributes:
        answer: Answers a request. A function, not a method: one frame less for each request.
    """

    __slots__ = ("answer",)

    def __init__(self, answer: Callable[[Any], Coroutine[Any, Any, Response]]) -> None:
        self.answer = answer

"""WebSockets behind a guard: each is closed when the session that opened it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from .tokens import Claims

__all__ = ["SECONDS", "OpenSockets"]

SECONDS: Final = 2.0
"""Seconds between two looks at the sessions."""
_POLICY: Final = 1008


class OpenSockets:
    """The WebSockets that guards have let pass.

    Args:
        is_alive: Returns whether a session has not ended.
    """

    def __init__(self, is_alive: Callable[[Claims], bool]) -> None:
        self._is_alive = is_alive
        self._open: dict[int, tuple[Any, Claims]] = {}

    @contextmanager
    def watched(self, socket: Any, claims: Claims) -> Iterator[None]:
        """Look after a socket as long as its handler runs."""
        self._open[id(socket)] = socket, claims
        try:
            yield
        finally:
            del self._open[id(socket)]

    async def close_ended(self) -> None:
        """Close the sockets whose sessions have ended."""
        for socket, claims in [*self._open.values()]:
            if not self._is_alive(claims):
                await socket.close(_POLICY, "the session has ended")

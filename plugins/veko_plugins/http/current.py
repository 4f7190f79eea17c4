"""The application of the routes that are live, for servers that outlive them.

A server keeps the application that it was given. The manager may stop and start meanwhile, and then
another dispatcher has the routes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .dispatch import problem
from .messages.asgi import ASGI, ASGISend, Receive, Scope
from .messages.problem import HTTPError

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["CurrentASGI"]


class CurrentASGI:
    """The application of the service `http`, whichever that is; without one it answers 503.

    Args:
        kernel: The kernel that has the service.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._app: ASGI = _unavailable
        self._version = -1

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
            return
        # The service `http` seldom changes, and each registry has its own version: a request
        # compares two numbers instead of looking the service up through five files. No registry
        # has it before the manager starts or after it stops; held by
        # test_A0_asgi_answers_503_while_the_manager_is_not_started.
        if self._kernel.bus.live.registry.version != self._version:
            self._look()
        await self._app(scope, receive, send)

    async def lifespan(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Speak ASGI's lifespan protocol."""
        self._look()
        await self._app(scope, receive, send)

    def _look(self) -> None:
        registry = self._kernel.bus.live.registry
        entry = registry.get("service", "http")
        self._app = _unavailable if entry is None else entry.value.asgi
        self._version = registry.version

    async def close_sockets(self) -> None:
        """Close every WebSocket with 1012 and wait until the handlers have ended."""
        entry = self._kernel.bus.live.registry.get("service", "http")
        if entry is not None:
            await entry.value.asgi.close_sockets()


async def _unavailable(scope: Scope, receive: Receive, send: ASGISend) -> None:
    """Refuse: the manager does not run, or runs without HTTP."""
    if scope["type"] == "http":
        await problem(HTTPError(503))(scope, receive, send)
    else:
        await receive()
        await send({"type": "websocket.close", "code": 1013})

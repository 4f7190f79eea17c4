"""The manager as an ASGI application: it starts and stops with the server's lifespan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .http import ASGISend, Receive, Scope
from .http.dispatch import lifespan

if TYPE_CHECKING:
    from .manager import PluginManager

__all__ = ["ManagerASGI"]


class ManagerASGI:
    """`manager.asgi`: give it to any ASGI server, or mount it into an application.

    A server that speaks the lifespan protocol starts and stops the manager, unless somebody has
    started it before.
    """

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Answer one connection."""
        manager = self._manager
        if scope["type"] == "lifespan":
            if manager.state in ("created", "stopped"):
                await lifespan(receive, send, manager.start, manager.stop)
            else:
                await lifespan(receive, send, _nothing, _nothing)
        else:
            await manager.use("http").asgi(scope, receive, send)


async def _nothing() -> None:
    """Somebody else starts and stops the manager."""

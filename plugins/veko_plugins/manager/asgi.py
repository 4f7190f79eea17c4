"""The manager as an ASGI application: it starts and stops with the server's lifespan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..http import ASGI, ASGISend, HTTPError, Receive, Scope, lifespan, problem

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["ManagerASGI"]


class Host(Protocol):
    """What it starts and stops: the manager."""

    kernel: Kernel

    @property
    def state(self) -> str:
        """Where it stands."""

    async def start(self) -> None:
        """Start it."""

    async def stop(self) -> None:
        """Stop it."""


class ManagerASGI:
    """`manager.asgi`: give it to any ASGI server, or mount it into an application.

    A server that speaks the lifespan protocol starts and stops the manager, unless somebody has
    started it before. While the manager does not run, requests are answered with 503.
    """

    def __init__(self, manager: Host) -> None:
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
            # As `manager.use("http")` finds it, whose calls cost more here than what they do.
            runs = manager.state not in ("created", "stopped")
            entry = manager.kernel.registry.get("service", "http") if runs else None
            app: ASGI = _unavailable if entry is None else entry.value.asgi
            await app(scope, receive, send)


async def _nothing() -> None:
    """Somebody else starts and stops the manager."""


async def _unavailable(scope: Scope, receive: Receive, send: ASGISend) -> None:
    """There are no routes: the manager does not run, or was told to do without HTTP."""
    if scope["type"] == "http":
        await problem(HTTPError(503))(scope, receive, send)
    else:
        await receive()
        await send({"type": "websocket.close", "code": 1013})

"""The manager as an ASGI application: it starts and stops with the server's lifespan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..http import ASGISend, CurrentASGI, Receive, Scope, lifespan

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["ManagerASGI"]


class Host(Protocol):
    """What the application starts and stops: the manager."""

    kernel: Kernel

    @property
    def state(self) -> str:
        """The manager's state, as `PluginManager.state`."""
        ...

    async def start(self) -> None:
        """Start the manager."""
        ...

    async def stop(self) -> None:
        """Stop the manager."""
        ...


class ManagerASGI(CurrentASGI):
    """`manager.asgi`: give it to any ASGI server, or mount it into an application.

    A server that speaks the lifespan protocol starts and stops the manager, unless it runs already.
    While the manager does not run, requests are answered with 503.
    """

    def __init__(self, manager: Host) -> None:
        super().__init__(manager.kernel)
        self._manager = manager

    async def lifespan(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Start and stop the manager, unless it runs already."""
        manager = self._manager
        if manager.state in ("created", "stopped"):
            await lifespan(receive, send, manager.start, manager.stop)
        else:
            await lifespan(receive, send, _nothing, _nothing)


async def _nothing() -> None:
    """Do nothing: the manager is started and stopped elsewhere."""

"""The manager as an ASGI application: it starts and stops with the server's lifespan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..http import ASGI, ASGISend, HTTPError, Receive, Scope, lifespan, problem

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


class ManagerASGI:
    """`manager.asgi`: give it to any ASGI server, or mount it into an application.

    A server that speaks the lifespan protocol starts and stops the manager, unless it runs already.
    While the manager does not run, requests are answered with 503.
    """

    def __init__(self, manager: Host) -> None:
        self._manager = manager
        self._app: ASGI = _unavailable
        self._version = -1

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan":
            manager = self._manager
            if manager.state in ("created", "stopped"):
                await lifespan(receive, send, manager.start, manager.stop)
            else:
                await lifespan(receive, send, _nothing, _nothing)
            return
        # The service `http` seldom changes, and each registry has its own version: a request
        # compares two numbers instead of looking the service up through five files. No registry
        # has it before the manager starts or after it stops; held by
        # test_A0_asgi_answers_503_while_the_manager_is_not_started.
        registry = self._manager.kernel.bus.live.registry
        if registry.version != self._version:
            entry = registry.get("service", "http")
            self._app = _unavailable if entry is None else entry.value.asgi
            self._version = registry.version
        await self._app(scope, receive, send)


async def _nothing() -> None:
    """Do nothing: the manager is started and stopped elsewhere."""


async def _unavailable(scope: Scope, receive: Receive, send: ASGISend) -> None:
    """Refuse: the manager does not run, or runs without HTTP."""
    if scope["type"] == "http":
        await problem(HTTPError(503))(scope, receive, send)
    else:
        await receive()
        await send({"type": "websocket.close", "code": 1013})

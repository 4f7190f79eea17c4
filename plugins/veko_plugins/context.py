"""The context as plugins of an application see it: the kernel's, and what ours attach to it.

For annotations only; what a plugin is given is a `veko.Context`. Whatever other plugins attach is
there too, untyped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import veko
from veko import Handle

from .storage import Namespace

__all__ = ["Context"]


class AddCommand(Protocol):
    def __call__(self, name: str, fn: Callable[..., Any], description: str = "") -> Handle:
        """Add a command; its options come from the function's signature."""
        ...


class AddWebSocket(Protocol):
    def __call__(
        self, path: str, *handlers: Callable[..., Any], handler: Callable[..., Any] | None = None
    ) -> Handle:
        """Add a WebSocket: its middlewares, then `async def handler(socket)`."""
        ...


class AddMiddleware(Protocol):
    def __call__(self, fn: Callable[..., Any], priority: float = 10) -> Handle:
        """Add a middleware: `async def mw(request, call_next)`."""
        ...


class Context(veko.Context):
    """`veko.Context` with the verbs of the core plugins.

    Attributes:
        storage: The plugin's own durable namespace.
        add_route: `add_route(method, path, *middlewares, handler)`.
        add_websocket: `add_websocket(path, *middlewares, handler)`.
        add_middleware: `add_middleware(fn, priority=10)`.
        add_command: `add_command(name, fn, description="")`.
    """

    storage: Namespace
    add_route: Callable[..., Handle]
    add_websocket: AddWebSocket
    add_middleware: AddMiddleware
    add_command: AddCommand

    def attach(self, name: str, factory: Callable[[Context], Any]) -> Handle:
        """See `veko.Context.attach`; the factory may ask for what core plugins attach."""
        return super().attach(name, cast("Any", factory))

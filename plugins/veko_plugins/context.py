"""The context as plugins of an application see it: the kernel's, and what core plugins attach.

For annotations only; the object is a `veko.Context`. To type what other plugins attach, declare
it in a subclass and annotate with that, or get it with `context.attached(name)`:

    class Context(veko_plugins.Context):
        schedule: Schedule
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import veko
from veko import Handle, Subscription

from .storage import Namespace

if TYPE_CHECKING:
    from typing_extensions import TypeVar as _TypeVar

    from .cache import Cache
    from .database import Database
    from .transpile import TranspileFunction

    _Settings = _TypeVar("_Settings", default=Any)
else:  # see veko.Context
    _Settings = TypeVar("_Settings")

__all__ = ["Context"]


class AddRoute(Protocol):
    def __call__(
        self,
        method: str,
        path: str,
        *handlers: Callable[..., Any],
        handler: Callable[..., Any] | None = None,
        sync_to_thread: bool = True,
    ) -> Handle:
        """Add a route: its middlewares, then its handler.

        A `def` handler runs in a thread; `sync_to_thread=False` runs it on the event loop, for one
        that never waits.
        """
        ...


class AddRoutes(Protocol):
    def __call__(self, *handlers: object, path: str = "/") -> list[Handle]:
        """Add handlers of the adapter's framework, or a whole ASGI application, under a path."""
        ...


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


class AddTranspiler(Protocol):
    def __call__(
        self,
        suffix: str,
        fn: TranspileFunction,
        *,
        to: str = ".py",
        version: str = "",
        timeout: float | None = 30.0,
    ) -> Subscription:
        """Make files of a suffix plugins: `fn(text, path)` returns Python."""
        ...


class Context(veko.Context[_Settings]):
    """`veko.Context` with the verbs of the core plugins.

    Attributes:
        storage: The plugin's own durable namespace.
        cache: The plugin's own namespace of the cache, if the option `cache` is set.
        database: The database, in the plugin's name, if the option `database` is set.
        add_route: `add_route(method, path, *middlewares, handler, sync_to_thread=True)`.
        add_routes: `add_routes(*handlers, path="/")`.
        add_websocket: `add_websocket(path, *middlewares, handler)`.
        add_middleware: `add_middleware(fn, priority=10)`.
        add_command: `add_command(name, fn, description="")`.
        add_transpiler: `add_transpiler(suffix, fn, to=".py", version="", timeout=30)`.
    """

    storage: Namespace
    cache: Cache
    database: Database
    add_route: AddRoute
    add_routes: AddRoutes
    add_websocket: AddWebSocket
    add_middleware: AddMiddleware
    add_command: AddCommand
    add_transpiler: AddTranspiler

    def attach(self, name: str, factory: Callable[[Context], Any]) -> Handle:
        """See `veko.Context.attach`; the factory may use what core plugins attach."""
        return super().attach(name, cast("Any", factory))

"""The verbs `add_route`, `add_websocket` and `add_middleware`, which check and stage.

A mistake that the arguments alone show raises where the verb is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from veko import Context, Handle
from veko.errors import RouteError

from .._lib.route_paths import METHODS, parse_path
from .functions import may_be_awaited, name_of
from .middleware import Middleware, as_middleware
from .route import SOCKET, Route

__all__ = ["add_middleware", "add_route", "add_websocket"]

_Function = Callable[..., Any]


def add_route(context: Context) -> Callable[..., Handle]:
    """Return `context.add_route(method, path, *middlewares, handler)`; or use `handler=`.

    A `def` handler runs in a thread, unless `sync_to_thread=False` says that it never waits.
    """

    def verb(
        method: str,
        path: str,
        *handlers: _Function,
        handler: _Function | None = None,
        sync_to_thread: bool = True,
    ) -> Handle:
        if str(method).upper() not in METHODS:
            raise RouteError(
                f"{method!r} is not an HTTP method",
                plugin=context.name,
                remedy=f"Use one of {', '.join(sorted(METHODS))}, or add_websocket().",
            )
        return _stage(context, method.upper(), path, handlers, handler, sync_to_thread)

    verb.__name__ = verb.__qualname__ = "add_route"
    return verb


def add_websocket(context: Context) -> Callable[..., Handle]:
    """Return `context.add_websocket(path, *middlewares, handler)`; or use `handler=`."""

    def verb(path: str, *handlers: _Function, handler: _Function | None = None) -> Handle:
        return _stage(context, SOCKET, path, handlers, handler)

    verb.__name__ = verb.__qualname__ = "add_websocket"
    return verb


def _stage(
    context: Context,
    method: str,
    path: str,
    handlers: tuple[_Function, ...],
    handler: _Function | None,
    sync_to_thread: bool = False,
) -> Handle:
    if handler is not None:
        handlers = (*handlers, handler)
    where = f"{method} {path}"
    if not handlers:
        raise RouteError(
            f"the route {where} has no handler",
            plugin=context.name,
            remedy="Give it as the last argument.",
        )
    *middlewares, last = handlers
    if not callable(last):
        raise RouteError(
            f"the handler {last!r} of the route {where} cannot be called",
            plugin=context.name,
            remedy="Give a function.",
        )
    around = tuple(as_middleware(fn, context.name) for fn in middlewares)
    if method == SOCKET and not may_be_awaited(last):
        raise RouteError(
            f"the handler {name_of(last)} of the WebSocket {path} is not `async def`",
            plugin=context.name,
            remedy="Write `async def`: a WebSocket is awaited. Call what blocks with "
            "`anyio.to_thread.run_sync`.",
        )
    parse_path(path)
    route = Route(method, path, last, around, context.name, sync_to_thread)
    return context.register("route", (method, path), route)


def add_middleware(context: Context) -> Callable[..., Handle]:
    """Return `context.add_middleware(fn, priority=10)`."""

    def verb(fn: Middleware, priority: float = 10) -> Handle:
        made = as_middleware(fn, context.name)
        return context.register("middleware", name_of(made), made, priority=priority)

    verb.__name__ = verb.__qualname__ = "add_middleware"
    return verb

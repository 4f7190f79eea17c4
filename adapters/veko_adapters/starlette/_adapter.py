"""The adapter: binds plain handlers, and finds the routes of Starlette's and FastAPI's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.websockets import WebSocket as StarletteWebSocket
from veko import Context
from veko.errors import RouteError
from veko_plugins.http import ASGI, Endpoint, Fragment, Route

from .._binding import bind
from .._mounted import Mounted, is_asgi, mount, start
from .._parameters import Parameter, leaves, read
from .._serve import serve
from ._endpoints import SharedRequest, StarletteMounted, StarlettePlain, shared_socket
from ._openapi import describe
from ._sources import application_of, routes_of

__all__ = ["StarletteAdapter"]


class StarletteAdapter:
    """The HTTP port by Starlette."""

    name = "starlette"

    def compile(self, context: Context, routes: Sequence[Route]) -> Sequence[Endpoint]:
        """Compile routes; see `veko_plugins.http.Adapter.compile`."""
        endpoints: list[Any] = [
            route.handler
            if isinstance(route.handler, Mounted)
            else StarlettePlain(bind(route, _read(route, context), context))
            for route in routes
        ]
        return endpoints

    def expand(self, plugin: str, path: str, handler: object) -> Sequence[Route]:
        """Return the routes of a Starlette or FastAPI handler; see `Adapter.expand`.

        An application, Starlette's or any other, is mounted.
        """
        if isinstance(handler, Starlette):
            return mount(plugin, path, StarletteMounted(handler))
        try:
            source = application_of(handler, path)
        except Exception as error:
            raise RouteError(
                f"{handler!r} is refused: {type(error).__name__}: {error}",
                plugin=plugin,
                remedy="Fix the route or router; the error is the cause.",
            ) from error
        if source is not None:
            return routes_of(plugin, path, source)
        if is_asgi(handler):
            return mount(plugin, path, Mounted(cast("ASGI", handler)))
        raise RouteError(
            f"{handler!r} is not a route, router or application of Starlette or FastAPI",
            plugin=plugin,
            remedy="Use add_route() for a plain handler.",
        )

    def describe(self, context: Context, routes: Sequence[Route]) -> Fragment:
        """Describe routes; see `veko_plugins.http.Adapter.describe`."""
        return describe(routes, partial(_read, context=context))

    serve = staticmethod(serve)
    start = staticmethod(start)


def _read(route: Route, context: Context) -> tuple[Parameter, ...]:
    requests: dict[Any, Callable[[Any], Any]] = {
        StarletteRequest: SharedRequest.of,
        StarletteWebSocket: shared_socket,
    }
    return read(route, context, requests=requests, foreign=_is_foreign)


def _is_foreign(annotation: object) -> bool:
    """Return whether an annotation asks for an object of Starlette's or FastAPI's."""
    return any(
        str(getattr(one, "__module__", "")).startswith(("starlette.", "fastapi."))
        for leaf in leaves(annotation)
        for one in (leaf, type(leaf))
    )

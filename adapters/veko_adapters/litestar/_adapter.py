"""The adapter: chooses a route's endpoint, and finds the routes of Litestar's own handlers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from litestar import Litestar, Router
from litestar.exceptions import LitestarException
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute
from veko import Context
from veko.errors import RouteError
from veko_plugins.http import ASGI, SOCKET, Endpoint, Fragment, Route

from .._binding import bind, source
from .._mounted import Mounted, is_asgi, mount, start
from .._parameters import read
from .._serve import serve
from ._endpoints import Bound, Direct, Native, SharedRequest, Stack
from ._openapi import describe
from ._plain import OURS, is_foreign, synthesise, wants_litestar
from ._sockets import SocketStack, sockets_of

__all__ = ["LitestarAdapter"]


class LitestarAdapter:
    """The HTTP port by Litestar and uvicorn."""

    name = "litestar"

    def compile(self, context: Context, routes: Sequence[Route]) -> Sequence[Endpoint]:
        """Compile routes; see `veko_plugins.http.Adapter.compile`."""
        endpoints: list[Endpoint | None] = []
        bound: dict[str, Bound] = {}
        handlers: list[Any] = []
        native: dict[int, Stack] = {}
        sources: dict[int, Router] = {}
        for index, route in enumerate(routes):
            if isinstance(route.handler, Native):
                own = route.handler
                endpoint: Any = SocketStack() if route.method == SOCKET else Stack()
                native[index] = endpoint
                # A registered router belongs to one application, so each gets a new one.
                sources.setdefault(id(own.source), own.router())
            elif isinstance(route.handler, Mounted):
                endpoint = route.handler
            else:
                parameters = read(route, context, foreign=is_foreign)
                if not wants_litestar(parameters):
                    endpoint = Direct(bind(route, parameters, context))
                else:
                    path = f"/{index}"
                    endpoint = bound[path] = Bound()
                    ours = {
                        index: source(route, p, context)
                        for index, p in enumerate(parameters)
                        if p.location in OURS
                    }
                    handlers.append(synthesise(route, path, parameters, ours))
            endpoints.append(endpoint)
        if bound:
            app = _application(handlers, routes[0])
            for http in app.routes:
                one = cast("HTTPRoute", http)
                handler = one.route_handlers[0]
                bound[f"/{one.path_components[0]}"].connect(
                    app, one.handle, handler, one.path_format
                )
        if native:
            app = _application(list(sources.values()), routes[0])
            stacks = _stacks(app)
            for index, stack in native.items():
                own = cast("Native", routes[index].handler)
                stack.connect(app, *stacks[own.template, own.method], own.rest)
        return cast("list[Endpoint]", endpoints)

    def expand(self, plugin: str, path: str, handler: object) -> Sequence[Route]:
        """Return the routes of a Litestar handler; see `veko_plugins.http.Adapter.expand`.

        An application, Litestar's or any other, is mounted.
        """
        if isinstance(handler, Litestar) or (is_asgi(handler) and not _is_native(handler)):
            return mount(plugin, path, Mounted(cast("ASGI", handler)))
        try:
            router = Router(path, route_handlers=[cast("Any", handler)])
        except (LitestarException, TypeError, ValueError, AttributeError) as error:
            raise RouteError(
                f"{handler!r} is not a route handler, controller or router of Litestar: {error}",
                plugin=plugin,
                remedy="Use add_route() for a plain handler.",
            ) from error
        found: list[tuple[str, str, Any]] = [
            (str(method), str(method), http)
            for http in router.routes
            for one in getattr(http, "route_handlers", ())
            for method in sorted(one.http_methods)
            if not (method == "OPTIONS" and one.fn.__module__ == "litestar.routes.http")
        ]
        found += [(SOCKET, "websocket", one) for one in sockets_of(router.routes)]
        return [
            Route(
                method,
                _our_path(one.path_components),
                Native(handler, path, one.path_format, key, _rest(one.path_components)),
                plugin=plugin,
            )
            for method, key, one in found
        ]

    def describe(self, context: Context, routes: Sequence[Route]) -> Fragment:
        """Describe routes; see `veko_plugins.http.Adapter.describe`."""
        own = [(route, route.handler) for route in routes if isinstance(route.handler, Native)]
        others = [route for route in routes if not isinstance(route.handler, Native)]
        return describe(others, own, partial(read, context=context, foreign=is_foreign))

    serve = staticmethod(serve)
    start = staticmethod(start)


def _is_native(handler: object) -> bool:
    return isinstance(handler, (BaseRouteHandler, Router))


def _application(handlers: list[Any], route: Route) -> Litestar:
    try:
        return Litestar(
            handlers,
            openapi_config=None,
            logging_config=None,
            request_class=SharedRequest,
            request_max_body_size=None,  # ours holds, for every handler
        )
    except (LitestarException, TypeError, ValueError) as error:
        raise RouteError(
            f"Litestar refuses the routes: {error}",
            plugin=route.plugin,
            remedy="Fix the handler that the message names.",
        ) from error


def _stacks(app: Litestar) -> dict[tuple[str, str], tuple[Any, BaseRouteHandler, str]]:
    """Return stack, handler and path template of each route, by path template and method."""
    found: dict[tuple[str, str], tuple[Any, BaseRouteHandler, str]] = {}
    pending = [app.asgi_router.root_route_map_node]
    while pending:
        node = pending.pop()
        for method, (run, handler) in node.asgi_handlers.items():
            found[node.path_template, method] = run, handler, node.path_template
        pending.extend(node.children.values())
    return found


def _rest(components: Sequence[Any]) -> str | None:
    last = components[-1] if components else ""
    return None if isinstance(last, str) or not last.full.endswith(":path") else str(last.name)


def _our_path(components: Sequence[Any]) -> str:
    """Return a Litestar path for our table; a converter that it lacks becomes `str`."""
    known = {"int": "int", "float": "float", "uuid": "uuid", "path": "path"}
    parts: list[str] = []
    for component in components:
        if isinstance(component, str):
            parts.append(component)
        else:
            kind = component.full.partition(":")[2]
            parts.append(f"{{{component.name}:{known.get(kind, 'str')}}}")
    return "/" + "/".join(parts)

"""Starlette's and FastAPI's routes and routers, as applications and as routes of ours.

A router or a route becomes an application that has nothing else. Each of its routes becomes one of
ours: with the same path if our table can express it, else with the part that it can express and a
rest, as for a `Mount`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount, Router, WebSocketRoute
from starlette.routing import Route as StarletteRoute
from veko.errors import RouteError
from veko_plugins.http import SOCKET, Route, parse_path

from .._mounted import METHODS
from ._endpoints import StarletteMounted

__all__ = ["application_of", "methods_of", "routes_of"]

_KNOWN: Final = frozenset(("int", "float", "uuid", "path", "str"))
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([A-Za-z_][A-Za-z0-9_]*))?\}")


def application_of(handler: Any, path: str) -> Starlette | None:
    """Return an application that has only a route or a router; `None` if it is neither.

    Args:
        handler: The route or router.
        path: The path at which it is registered; only FastAPI's routers include it in theirs.
    """
    fastapi: Any = sys.modules.get("fastapi")
    if fastapi is not None and "fastapi.routing" in sys.modules:
        routing = fastapi.routing
        bare: Any = {"openapi_url": None, "docs_url": None, "redoc_url": None}
        if isinstance(handler, routing.APIRouter):
            app: Starlette = fastapi.FastAPI(**bare)
            app.include_router(handler, prefix=path.rstrip("/"))  # type: ignore[attr-defined]
            return app
        if isinstance(handler, (routing.APIRoute, routing.APIWebSocketRoute)):
            app = fastapi.FastAPI(**bare)
            app.router.routes.append(handler)
            return app
    if isinstance(handler, Router):
        app = Starlette()
        app.router = handler
        return app
    if isinstance(handler, BaseRoute):
        return Starlette(routes=[handler])
    return None


def routes_of(plugin: str, path: str, app: Starlette) -> list[Route]:
    """Return the routes of an application that `application_of` made."""
    prefix = "" if _has_full_paths(app) else path.rstrip("/")
    handler = StarletteMounted(app, above=len(parse_path(prefix or "/")))
    found: dict[tuple[str, str], Route] = {}
    for one in _flat(app):
        try:
            own_paths, methods = _paths_and_methods(one)
        except ValueError as error:
            raise RouteError(
                str(error), plugin=plugin, remedy="Register it inside an application."
            ) from None
        for own_path in own_paths:
            full = prefix + own_path if own_path != "/" or not prefix else prefix
            for method in methods:
                found.setdefault((method, full), Route(method, full, handler, plugin=plugin))
    return list(found.values())


def _has_full_paths(app: Starlette) -> bool:
    """Return whether its routes include the path at which they are registered."""
    fastapi: Any = sys.modules.get("fastapi")
    if fastapi is None or not isinstance(app, fastapi.FastAPI):
        return False
    return not any(
        isinstance(one, (fastapi.routing.APIRoute, fastapi.routing.APIWebSocketRoute))
        for one in app.router.routes
    )


def _flat(app: Starlette) -> Iterable[Any]:
    """Return its routes, including those of routers that FastAPI includes."""
    routing: Any = sys.modules.get("fastapi.routing")
    flatten = getattr(routing, "iter_route_contexts", None)
    return flatten(app.routes) if flatten is not None else app.routes


def _paths_and_methods(one: Any) -> tuple[list[str], Iterable[str]]:
    """Return the paths and the methods for our table of a route.

    Raises:
        ValueError: It has no path.
    """
    original = getattr(one, "original_route", one)
    path = getattr(one, "path", None)
    if path is None or isinstance(original, Host):
        raise ValueError(f"{original!r} has no path")
    if isinstance(original, Mount):
        return _below(path), METHODS
    if isinstance(original, WebSocketRoute):
        return _own_paths(path), (SOCKET,)
    if isinstance(original, StarletteRoute):
        methods = getattr(one, "methods", None) or methods_of(original.endpoint)
        # In our table a GET route answers HEAD too.
        return _own_paths(path), sorted({*methods} - ({"HEAD"} if "GET" in methods else set()))
    raise ValueError(f"{original!r} is not a route with a path")


def methods_of(endpoint: Any) -> set[str]:
    """Return the methods of an endpoint that is a class."""
    usual = {method for method in METHODS if method != SOCKET}
    return {method for method in usual if hasattr(endpoint, method.lower())} or usual


def _own_paths(path: str) -> list[str]:
    parts = path.split("/")[1:]
    known = all(
        "{" not in part or ((m := _PARAMETER.fullmatch(part)) and (m[2] or "str") in _KNOWN)
        for part in parts
    )
    early = any(part.endswith(":path}") for part in parts[:-1])
    empty = any(not part for part in parts[:-1])
    return [path.rstrip("/") or "/"] if known and not early and not empty else _below(path)


def _below(path: str) -> list[str]:
    """Return the paths for one of which only the beginning can be expressed, and a rest."""
    kept: list[str] = []
    for part in path.split("/")[1:]:
        match = _PARAMETER.fullmatch(part)
        if not part or ("{" in part and (match is None or (match[2] or "str") == "path")):
            break
        known = match is None or (match[2] or "str") in _KNOWN
        kept.append(part if known or match is None else f"{{{match[1]}}}")
    base = "/" + "/".join(kept)
    return [base, f"{base.rstrip('/')}/{{rest:path}}"]

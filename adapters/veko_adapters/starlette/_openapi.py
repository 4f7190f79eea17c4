"""Starlette's and FastAPI's handlers in a document with others.

FastAPI describes itself. Of a Starlette route, only the path and the docstring of its endpoint are
known. The routes below a `Mount` of a router are not described.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route as StarletteRoute
from veko_plugins.http import METHODS, Fragment, Merger, Route, parse_path

from .. import _openapi as plain
from .._schemas import Schemas
from ._endpoints import StarletteMounted
from ._sources import methods_of

__all__ = ["describe"]

_Object = dict[str, Any]


def describe(routes: Sequence[Route], read: plain.Read) -> Fragment:
    """Describe a plugin's routes of all kinds.

    Args:
        routes: The routes.
        read: Returns the parameters of a plain handler.
    """
    merger = Merger()
    merger.add(plain.describe(routes, read), "plain")
    others = []
    for path, handler in plain.whole(routes):
        if isinstance(handler, StarletteMounted):
            merger.add(plain.below(path, _own_description(handler)), "mounted")
        else:
            others += [route for route in routes if route.handler is handler]
    merger.add(plain.mounted(others), "mounted")
    for handler, leading in _taken_apart(routes):
        merger.add(_parts(handler, leading), "starlette")
    return merger.whole


def _taken_apart(routes: Iterable[Route]) -> list[tuple[StarletteMounted, list[Route]]]:
    found: dict[int, tuple[StarletteMounted, list[Route]]] = {}
    for route in routes:
        handler: Any = route.handler
        if isinstance(handler, StarletteMounted) and handler.above is not None:
            found.setdefault(id(handler), (handler, []))[1].append(route)
    return list(found.values())


def _parts(handler: StarletteMounted, routes: Iterable[Route]) -> Fragment:
    """Describe the live routes of an application that holds a registered route or router."""
    own = _own_description(handler)
    known = {path.rstrip("/") or "/": item for path, item in own.paths.items()}
    fragment = Fragment({}, own.components)
    for route in routes:
        path = plain.given_path(route)
        inner = "/" + "/".join(path.split("/")[1 + (handler.above or 0) :])
        operation = known.get(inner, {}).get(route.method.lower())
        if operation is not None:
            fragment.paths.setdefault(path, {})[route.method.lower()] = operation
    return fragment


def _own_description(handler: StarletteMounted) -> Fragment:
    """Return an application's own description, with problems where it answers with these."""
    source: Any = handler.source
    make = getattr(source, "openapi", None)
    if make is None:
        return _bare(source)
    if source.openapi_url is None and handler.above is None:
        return Fragment()
    document: _Object = make()
    components: _Object = {**document.get("components", {}), "responses": plain.problems()}
    schemas = dict(components.get("schemas", {}))
    translates = handler.translates
    if translates:
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
    components["schemas"] = schemas
    paths = {
        path: {
            method: _with_problems(operation) if translates else operation
            for method, operation in item.items()
            if method in METHODS
        }
        for path, item in document["paths"].items()
    }
    return Fragment(paths, components)


def _with_problems(operation: _Object) -> _Object:
    responses = {
        status: plain.PROBLEM if "HTTPValidationError" in str(response) else response
        for status, response in operation.get("responses", {}).items()
    }
    return {**operation, "responses": plain.PROBLEMS | responses}


def _bare(app: Starlette) -> Fragment:
    """Describe the paths of a Starlette application's routes."""
    fragment = Fragment({}, {"responses": plain.problems()})
    nothing = Schemas(())
    for one in app.routes:
        if not isinstance(one, StarletteRoute) or not one.include_in_schema:
            continue
        methods = set(one.methods or methods_of(one.endpoint))
        for method in sorted(methods - ({"HEAD"} if "GET" in methods else set())):
            try:
                parse_path(one.path)
            except Exception:  # its path has no equivalent in our table
                continue
            route = Route(method, one.path, one.endpoint)
            if plain.is_shown(route):
                item = fragment.paths.setdefault(one.path_format, {})
                item[method.lower()] = plain.operation_of(route, (), nothing)
    return fragment

"""Litestar's own handlers, as Litestar describes them, in a document with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Litestar
from litestar.openapi import OpenAPIConfig
from veko_plugins.http import Fragment, Merger, Route

from .. import _openapi as plain
from .._mounted import Mounted
from .._schemas import Schemas, answers_of
from ._endpoints import Native
from ._plain import synthesise, wants_litestar

__all__ = ["describe"]

_Object = dict[str, Any]


def describe(
    routes: Sequence[Route], own: Sequence[tuple[Route, Native]], read: plain.Read
) -> Fragment:
    """Describe a plugin's routes.

    Args:
        routes: Routes with plain handlers or mounted applications.
        own: Routes with Litestar's handlers, each with its `Native`.
        read: Returns the parameters of a plain handler.
    """
    shown = [
        route
        for route in routes
        if plain.is_shown(route) and not isinstance(route.handler, Mounted)
    ]
    bound = [route for route in shown if wants_litestar(read(route))]
    merger = Merger()
    merger.add(plain.describe((route for route in shown if route not in bound), read), "plain")
    merger.add(plain.mounted(routes), "mounted")
    if own:
        merger.add(_own(own), "litestar")
    if bound:
        merger.add(_bound(bound, read), "bound")
    return merger.whole


def _own(routes: Sequence[tuple[Route, Native]]) -> Fragment:
    sources = {(id(native.source), native.path): native for _, native in routes}
    schema = _schema([native.router() for native in sources.values()])
    fragment = Fragment({}, _components(schema))
    for route, native in routes:
        # Hooks may have changed its path.
        operation = schema["paths"].get(native.template, {}).get(native.method.lower())
        if operation is not None:
            fragment.paths.setdefault(plain.given_path(route), {})[route.method.lower()] = (
                _with_problems(operation)
            )
    return fragment


def _bound(routes: Sequence[Route], read: plain.Read) -> Fragment:
    """Describe plain handlers with Litestar's annotations, their parameters by Litestar."""
    schemas = Schemas(answer for route in routes for answer in answers_of(route.handler))
    schema = _schema(
        [synthesise(route, f"/{index}", read(route)) for index, route in enumerate(routes)]
    )
    wanted = Fragment({}, _components(schema))
    for path, item in schema["paths"].items():
        route = routes[int(path.split("/")[1])]
        theirs = item[route.method.lower()]
        operation = plain.operation_of(route, (), schemas)
        if "requestBody" in theirs:
            operation["requestBody"] = theirs["requestBody"]
        found = theirs.get("parameters", [])
        names = {(p.get("in"), p.get("name")) for p in found}
        found += [p for p in operation.get("parameters", ()) if (p["in"], p["name"]) not in names]
        if found:
            operation["parameters"] = found
        operation["responses"]["400"] = plain.PROBLEM
        wanted.paths.setdefault(plain.given_path(route), {})[route.method.lower()] = operation
    merger = Merger()
    merger.add(Fragment({}, {"schemas": schemas.components, "responses": plain.problems()}), "")
    merger.add(wanted, "wanted")
    return merger.whole


def _schema(handlers: Sequence[Any]) -> _Object:
    app = Litestar(
        handlers, openapi_config=OpenAPIConfig(title="", version=""), logging_config=None
    )
    schema: _Object = app.openapi_schema.to_schema()
    schema.setdefault("paths", {})
    return schema


def _components(schema: _Object) -> _Object:
    components = dict(schema.get("components", {}))
    return {**components, "responses": {**components.get("responses", {}), **plain.problems()}}


def _with_problems(operation: _Object) -> _Object:
    """Replace Litestar's exceptions by problems, as the endpoints do."""
    responses = {
        status: plain.PROBLEM if _is_exception(status, response) else response
        for status, response in operation.get("responses", {}).items()
    }
    return {**operation, "responses": plain.PROBLEMS | responses}


def _is_exception(status: str, response: _Object) -> bool:
    if not status.startswith(("4", "5")):
        return False
    for media in response.get("content", {}).values():
        schema = media.get("schema", {})
        for one in (schema, *schema.get("oneOf", ())):
            if {"status_code", "detail"} <= set(one.get("properties", ())):
                return True
    return False

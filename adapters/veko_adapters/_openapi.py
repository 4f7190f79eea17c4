"""Plain handlers in OpenAPI 3.1, described alike by every adapter.

The parameters are those that binding reads from the signature. The answer is the return annotation;
without one, the document promises nothing. The docstring is summary and description.
`handler.include_in_schema = False` hides a handler, as in Litestar and FastAPI, and `@deprecated`
(PEP 702) marks it.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from veko_plugins.http import METHODS, Fragment, Merger, Problem, Response, Route, parse_path

from ._mounted import Mounted
from ._parameters import EMPTY, Parameter, is_optional
from ._schemas import REFS, Schemas, answers_of

__all__ = [
    "PROBLEM",
    "PROBLEMS",
    "Read",
    "below",
    "describe",
    "given_path",
    "is_shown",
    "mounted",
    "operation_of",
    "own_description",
    "problems",
    "whole",
]

_Object = dict[str, Any]

PROBLEM: Final = {"$ref": "#/components/responses/Problem"}
PROBLEMS: Final = {"4XX": PROBLEM}
"""The responses that every route may give: errors of the client, a guard or a limit."""

_IN: Final = {"path": "path", "query": "query", "header": "header", "cookie": "cookie"}
_CONVERTED: Final[dict[str, _Object]] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "uuid": {"type": "string", "format": "uuid"},
    "str": {"type": "string", "minLength": 1},
    "path": {"type": "string"},
}
_FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
_SCALARS: Final = frozenset(("string", "integer", "number", "boolean"))
_BINARY: Final = (bytes, bytearray, memoryview)


Read = Callable[[Route], Sequence[Parameter]]


def describe(routes: Iterable[Route], read: Read) -> Fragment:
    """Describe the routes whose handlers are plain functions; see `Adapter.describe`.

    Args:
        routes: The routes.
        read: Returns the parameters of a route's handler, as the adapter reads them to compile it.
    """
    shown = [
        (route, read(route))
        for route in routes
        if is_shown(route) and not isinstance(route.handler, Mounted)
    ]
    wanted = [p.annotation for _, parameters in shown for p in parameters if _is_described(p)]
    wanted += [answer for route, _ in shown for answer in answers_of(route.handler)]
    schemas = Schemas(wanted)
    fragment = Fragment({}, {"schemas": schemas.components, "responses": problems()})
    for route, parameters in shown:
        item = fragment.paths.setdefault(given_path(route), {})
        item[route.method.lower()] = operation_of(route, parameters, schemas)
    return fragment


def mounted(routes: Iterable[Route]) -> Fragment:
    """Describe mounted applications that describe themselves, such as FastAPI's.

    Args:
        routes: The routes, those that lead to applications among them.
    """
    merger = Merger()
    for path, handler in whole(routes):
        merger.add(below(path, own_description(handler.app)), "mounted")
    return merger.whole


def whole(routes: Iterable[Route]) -> list[tuple[str, Mounted]]:
    """Return the applications that are mounted as a whole, each with its path."""
    found: dict[int, tuple[str, Mounted]] = {}
    for route in routes:
        handler = route.handler
        if isinstance(handler, Mounted) and handler.above is None:
            known = found.setdefault(id(handler), (route.path, handler))
            if len(route.path) < len(known[0]):
                found[id(handler)] = route.path, handler
    return list(found.values())


def own_description(app: Any) -> Fragment:
    """Return an application's own description; empty if it has or publishes none."""
    make: Callable[[], _Object] | None = getattr(app, "openapi", None)
    if make is None or getattr(app, "openapi_url", None) is None:
        return Fragment()
    document = make()
    return Fragment(document["paths"], document.get("components", {}))


def below(path: str, fragment: Fragment) -> Fragment:
    """Return a fragment with all its paths below another path."""
    above = path.rstrip("/")
    paths = {
        (above + inner).rstrip("/") or "/": operations
        for inner, operations in fragment.paths.items()
    }
    return Fragment(paths, fragment.components)


def is_shown(route: Route) -> bool:
    """Return whether a route is shown in the document."""
    hidden = getattr(route.handler, "include_in_schema", True) is False
    return route.method.lower() in METHODS and not hidden


def given_path(route: Route) -> str:
    """Return a route's path as OpenAPI writes it: without converters."""
    segments = parse_path(route.path)
    return "/" + "/".join(f"{{{s.text}}}" if s.converter else s.text for s in segments)


def problems() -> _Object:
    """Return the response component for problems; its schema has no references."""
    _, found = msgspec.json.schema_components([Problem], ref_template=REFS)
    schema, fault = found["Problem"], found["Fault"]
    schema["properties"]["errors"]["items"] = fault
    del schema["description"], fault["description"], schema["properties"]["traceback"]
    return {
        "Problem": {
            "description": "A problem (RFC 9457)",
            "content": {"application/problem+json": {"schema": schema}},
        }
    }


def operation_of(route: Route, parameters: Sequence[Parameter], schemas: Schemas) -> _Object:
    """Describe one route."""
    operation: _Object = _about(route)
    described = [_parameter(route, p, schemas) for p in parameters if p.location in _IN]
    named = {p["name"] for p in described if p["in"] == "path"}
    for segment in parse_path(route.path):
        if segment.converter and segment.text not in named:
            described.append(
                {
                    "name": segment.text,
                    "in": "path",
                    "required": True,
                    "schema": dict(_CONVERTED[segment.converter]),
                }
            )
    if described:
        operation["parameters"] = described
    for p in parameters:
        if p.location == "body":
            operation["requestBody"] = _body(p, schemas)
    operation["responses"] = _responses(answers_of(route.handler), schemas)
    if any(_may_not_fit(p) for p in parameters):
        operation["responses"]["400"] = PROBLEM
    return operation


def _about(route: Route) -> _Object:
    """Return the operation's id, and the summary and description of the docstring."""
    handler = route.handler
    while isinstance(handler, functools.partial):
        handler = handler.func
    name = getattr(handler, "__name__", "").strip("_")
    if not name.isidentifier():
        name = "_".join((route.method.lower(), *re.findall(r"\w+", given_path(route))))
    operation: _Object = {"operationId": f"{route.plugin}_{name}" if route.plugin else name}
    doc = inspect.getdoc(handler) if inspect.isroutine(handler) else None
    if doc:
        first, _, rest = doc.partition("\n\n")
        operation["summary"] = " ".join(first.split()).removesuffix(".")
        if rest.strip():
            operation["description"] = rest.strip()
    if getattr(handler, "__deprecated__", None) is not None:
        operation["deprecated"] = True
    return operation


def _is_described(p: Parameter) -> bool:
    return p.location in _IN or p.location == "body"


def _may_not_fit(p: Parameter) -> bool:
    if p.location == "path":
        return p.annotation is not Any and p.annotation is not str
    return _is_described(p) and not (p.annotation is str and p.default is not EMPTY)


def _parameter(route: Route, p: Parameter, schemas: Schemas) -> _Object:
    schema = schemas.of(p.annotation)
    parameter: _Object = {"name": p.name, "in": _IN[p.location], "schema": schema}
    if p.location == "path":
        parameter["required"] = True
        converter = next(s.converter for s in parse_path(route.path) if s.text == p.name)
        if p.annotation is Any or (p.annotation is str and converter != "str"):
            parameter["schema"] = dict(_CONVERTED[converter])
        elif converter == "str" and schema.get("type") == "string":
            schema.setdefault("minLength", 1)
        return parameter
    # A query parameter is null by being left out.
    options = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(options) == 1:
        schema = {**{k: v for k, v in schema.items() if k != "anyOf"}, **options[0]}
        parameter["schema"] = schema
    if description := schema.pop("description", None):
        parameter["description"] = description
    parameter["required"] = p.default is EMPTY and not is_optional(p.annotation)
    if p.default is not EMPTY:
        try:
            default = msgspec.json.decode(msgspec.json.encode(p.default))
        except TypeError:
            default = None  # it is not data: no client could send it
        if default is not None:
            schema["default"] = default
    return parameter


def _body(p: Parameter, schemas: Schemas) -> _Object:
    required = p.default is EMPTY and not is_optional(p.annotation)
    if p.annotation in _BINARY:
        return {"content": {"application/octet-stream": {}}, "required": required}
    schema = schemas.of(p.annotation)
    content = {"application/json": {"schema": schema}}
    if _is_flat(schemas.resolved(schema)):
        for media_type in _FORMS:
            content[media_type] = {"schema": schema}
    return {"content": content, "required": required}


def _is_flat(schema: _Object) -> bool:
    """Return whether a form can hold it: an object whose fields are all scalars."""
    fields = schema.get("properties", {}).values()
    return bool(fields) and all(field.get("type") in _SCALARS for field in fields)


def _is_open(option: Any) -> bool:
    """Return whether it is a response class, whose status and content are open."""
    kind = typing.get_origin(option) or option
    if not isinstance(kind, type):
        return False
    own = issubclass(kind, Response)
    return own or hasattr(kind, "to_asgi_response") or kind.__module__.startswith("starlette.")


def _responses(options: Sequence[Any], schemas: Schemas) -> _Object:
    """Describe the responses of a handler; those with open statuses are under `default`."""
    responses: _Object = {}
    content: _Object = {}
    several: list[_Object] = []
    for option in options:
        kind = typing.get_origin(option) or option
        if _is_open(option):
            responses["default"] = {"description": "The answer"}
        elif option is None or option is type(None):
            responses["204"] = {"description": "No content"}
        elif kind is str:
            content["text/plain"] = {"schema": {"type": "string"}}
        elif isinstance(kind, type) and issubclass(kind, _BINARY):
            content["application/octet-stream"] = {}
        elif isinstance(kind, type) and issubclass(kind, AsyncIterable):
            content["text/plain"] = {"schema": {"type": "string"}}
        else:
            several.append(schemas.of(option))
    if several:
        schema = several[0] if len(several) == 1 else {"anyOf": several}
        content["application/json"] = {"schema": schema}
    if content:
        responses["200"] = {"description": "The answer", "content": content}
    if not responses:
        responses["default"] = {"description": "The answer"}
    return responses | PROBLEMS

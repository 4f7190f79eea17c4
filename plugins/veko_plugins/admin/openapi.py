"""The OpenAPI document of the management API, made of the table of endpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from veko import __version__

from .access import COOKIE
from .documents import Plan, Problem
from .endpoints import PLAN, Endpoint, Parameter
from .exchange import JSON, PREFIX

__all__ = ["document_of", "fragment_of"]

_REF: Final = "#/components/schemas/{name}"
_TITLES: Final = {
    400: "The request is not well-formed.",
    401: "A valid token is needed.",
    403: "The role, the host or the origin is not allowed.",
    404: "There is no such thing.",
    409: "The state does not allow it.",
    412: "The configuration has changed meanwhile.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    422: "Something in it is not valid; `faults` says what.",
    428: "`If-Match` is needed.",
    503: "Too many clients look.",
}
_SECURITY: Final = {
    "vekoToken": {"type": "http", "scheme": "bearer"},
    "vekoSession": {"type": "apiKey", "in": "cookie", "name": COOKIE},
}


def document_of(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Return a document of the API alone."""
    paths, components = fragment_of(endpoints)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Veko's management API", "version": __version__},
        "paths": paths,
        "components": components,
    }


def fragment_of(endpoints: Iterable[Endpoint]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the paths and the components of the API."""
    endpoints = tuple(endpoints)
    types: list[Any] = [Problem, Plan]
    for one in endpoints:
        types += [part for part in (one.answer, one.body) if part is not None]
        types += [parameter.type for parameter in one.parameters]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    known = {id(type_): schema for type_, schema in zip(types, schemas, strict=True)}
    paths: dict[str, Any] = {}
    for one in endpoints:
        path = f"{PREFIX}/{one.path.replace(':path}', '}')}"
        paths.setdefault(path, {})[one.method.lower()] = _operation(one, known)
    return paths, {"schemas": components, "securitySchemes": _SECURITY}


def _operation(endpoint: Endpoint, known: dict[int, Any]) -> dict[str, Any]:
    names = [part[1:-1].partition(":")[0] for part in endpoint.segments if part.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    query = (*endpoint.parameters, PLAN) if endpoint.plans else endpoint.parameters
    parameters += [_parameter(one, known.get(id(one.type))) for one in query]
    if endpoint.conditional:
        parameters.append({
            "name": "If-Match",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "The `ETag` of the configuration that this is about.",
        })  # fmt: skip
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.doc,
        "description": f"Needs the role `{endpoint.role}`.",
        "security": [{name: []} for name in _SECURITY],
        "responses": {str(endpoint.status): _success(endpoint, known), **_refusals(endpoint)},
    }
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": endpoint.body_required,
            "content": {JSON: {"schema": known[id(endpoint.body)]}},
        }
    return operation


def _parameter(one: Parameter, schema: Any) -> dict[str, Any]:
    made: dict[str, Any] = dict(schema or {"type": "boolean"})
    if one.default is not None:
        made["default"] = one.default
    return {
        "name": one.name,
        "in": "query",
        "required": False,
        "schema": made,
        "description": one.doc,
    }


def _success(endpoint: Endpoint, known: dict[int, Any]) -> dict[str, Any]:
    schema: Any = {"type": "string"}
    if endpoint.plans:
        schema = {"anyOf": [known[id(endpoint.answer)], {"$ref": _REF.format(name="Plan")}]}
    elif endpoint.answer is not None:
        schema = known[id(endpoint.answer)]
    found: dict[str, Any] = {
        "description": endpoint.doc,
        "content": {endpoint.media_type: {"schema": schema}},
    }
    if endpoint.conditional or endpoint.versioned:
        found["headers"] = {"ETag": {"schema": {"type": "string"}}}
    return found


def _refusals(endpoint: Endpoint) -> dict[str, Any]:
    statuses = {401, 403, *endpoint.refusals}
    if endpoint.parameters or endpoint.plans:
        statuses.add(422)
    if endpoint.body is not None:
        statuses |= {400, 413, 415, 422}
    if endpoint.conditional:
        statuses.add(412)
    if endpoint.conditional == "required":
        statuses.add(428)
    content = {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}}
    return {
        str(status): {"description": _TITLES[status], "content": content}
        for status in sorted(statuses)
    }

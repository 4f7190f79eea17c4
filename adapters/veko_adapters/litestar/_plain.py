"""Plain functions as Litestar route handlers, and responses of handlers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final, cast

from litestar import Request as LitestarRequest
from litestar.exceptions import LitestarException
from litestar.handlers import HTTPRouteHandler
from litestar.params import KwargDefinition, PathParameter, QueryParameter, RequestBody
from litestar.response import Response as LitestarResponse
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp
from litestar.types import Scope as LitestarScope
from veko.errors import RouteError
from veko_plugins.http import REQUEST, Request, Response, Route, pull_response

from .._binding import Source, settle
from .._parameters import EMPTY, Parameter, leaves
from .._pydantic import is_model

__all__ = ["OURS", "is_foreign", "respond", "synthesise", "wants_litestar"]

OURS: Final = frozenset(("request", "context", "service"))
"""Locations that Litestar does not have."""


def is_foreign(annotation: Any) -> bool:
    """Return whether Litestar, not msgspec, handles an annotation."""
    return any(
        type(leaf).__module__.startswith("litestar.")
        or getattr(leaf, "__module__", "").startswith("litestar.")
        or hasattr(leaf, "model_validate")
        for leaf in leaves(annotation)
    )


def wants_litestar(parameters: Sequence[Parameter]) -> bool:
    """Return whether Litestar must provide some of a handler's arguments."""
    return any(
        p.location not in OURS
        and is_foreign(p.annotation)
        and not (p.location == "body" and is_model(p.annotation))
        for p in parameters
    )


async def respond(answer: Any, scope: Any, receive: Any) -> Response:
    """Return a response for what a handler returned, which may be one of Litestar's."""
    if isinstance(answer, LitestarResponse):
        request: Any = LitestarRequest(scope, receive)
        answer = answer.to_asgi_response(app=None, request=request)
    if isinstance(answer, ASGIResponse):
        return await pull_response(cast("Any", answer), scope, receive)
    return Response.of(answer)


def synthesise(
    route: Route,
    path: str,
    parameters: Sequence[Parameter],
    ours: Mapping[int, Source] = MappingProxyType({}),
) -> HTTPRouteHandler:
    """Return a Litestar route handler that calls a plain one.

    Its parameters get names of ours, since Litestar reserves names such as `state` and `query`.

    Args:
        route: The route of the plain handler.
        path: The path in the Litestar application.
        parameters: The plain handler's parameters.
        ours: Functions that return the arguments which Litestar cannot provide, by index.

    Raises:
        RouteError: Litestar refuses the handler.
    """
    handler = route.handler
    signature = [_keyword("scope", LitestarScope)]
    in_path = ""
    for index, p in enumerate(parameters):
        if p.location in OURS or _is_raw(p):
            continue
        if _is_marked(p.annotation):
            signature.append(_keyword(p.name, p.annotation, p.default))
            continue
        if p.location == "body":
            body: Any = RequestBody
            signature.append(_keyword("data", body[p.annotation], p.default))
            continue
        marker: Any = PathParameter if p.location == "path" else QueryParameter
        argument: Any = Annotated
        annotation = argument[p.annotation, marker(name=p.name)]
        signature.append(_keyword(f"a{index}", annotation, p.default))
        if p.location == "path":
            in_path += f"/{{{p.name}:str}}"

    names = {
        index: p.name if p.location == "body" or _is_marked(p.annotation) else f"a{index}"
        for index, p in enumerate(parameters)
    }

    async def call(scope: Any, **arguments: Any) -> Any:
        request: Request = scope[REQUEST]
        args: list[Any] = []
        named: dict[str, Any] = {}
        for index, p in enumerate(parameters):
            value: Any
            if index in ours:
                value = ours[index](request)
            elif _is_raw(p):
                value = await request.body()
            else:
                value = arguments[names[index]]
            if p.by_position:
                args.append(value)
            else:
                named[p.name] = value
        answer = await settle(handler(*args, **named))
        if not isinstance(answer, Response):
            answer = await respond(answer, scope, request.receive)
        return answer

    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        signature, return_annotation=ASGIApp
    )
    call.__annotations__ = {p.name: p.annotation for p in signature} | {"return": ASGIApp}
    try:
        return HTTPRouteHandler(path + in_path, http_method=[cast("Any", route.method)])(call)
    except (LitestarException, TypeError, ValueError) as error:
        raise RouteError(
            f"Litestar refuses the handler of {route.method} {route.path}: {error}",
            plugin=route.plugin,
            remedy="Fix its annotations.",
        ) from error


def _is_marked(annotation: Any) -> bool:
    """Return whether the annotation itself names the argument's location."""
    return any(
        isinstance(leaf, KwargDefinition) for leaf in getattr(annotation, "__metadata__", ())
    )


def _is_raw(parameter: Parameter) -> bool:
    return parameter.location == "body" and parameter.annotation is bytes


def _keyword(name: str, annotation: Any, default: Any = EMPTY) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )

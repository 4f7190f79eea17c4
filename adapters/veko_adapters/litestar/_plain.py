"""Plain functions as Litestar route handlers, and what handlers answer."""

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
"""What Litestar knows nothing of."""


def is_foreign(annotation: Any) -> bool:
    """Tell whether an annotation is Litestar's business rather than msgspec's."""
    return any(
        type(leaf).__module__.startswith("litestar.")
        or getattr(leaf, "__module__", "").startswith("litestar.")
        or hasattr(leaf, "model_validate")
        for leaf in leaves(annotation)
    )


def wants_litestar(parameters: Sequence[Parameter]) -> bool:
    """Tell whether some of a handler's arguments are for Litestar to make."""
    return any(
        p.place not in OURS
        and is_foreign(p.annotation)
        and not (p.place == "body" and is_model(p.annotation))
        for p in parameters
    )


async def respond(answer: Any, scope: Any, receive: Any) -> Response:
    """Turn what a handler returned into a response; Litestar's own responses are fine too."""
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
    """Make a Litestar route handler of a plain one.

    Its parameters have names of ours, since Litestar has its own idea of `state` or `query`.
    """
    handler = route.handler
    signature = [_keyword("scope", LitestarScope)]
    in_path = ""
    for index, p in enumerate(parameters):
        if p.place in OURS or _is_raw(p):
            continue
        if _is_marked(p.annotation):
            signature.append(_keyword(p.name, p.annotation, p.default))
            continue
        if p.place == "body":
            body: Any = RequestBody
            signature.append(_keyword("data", body[p.annotation], p.default))
            continue
        marker: Any = PathParameter if p.place == "path" else QueryParameter
        argument: Any = Annotated
        annotation = argument[p.annotation, marker(name=p.name)]
        signature.append(_keyword(f"a{index}", annotation, p.default))
        if p.place == "path":
            in_path += f"/{{{p.name}:str}}"

    names = {
        index: p.name if p.place == "body" or _is_marked(p.annotation) else f"a{index}"
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
            f"the handler of {route.method} {route.path} is refused: {error}", plugin=route.plugin
        ) from error


def _is_marked(annotation: Any) -> bool:
    """Tell whether Litestar is told where the argument comes from."""
    return any(
        isinstance(leaf, KwargDefinition) for leaf in getattr(annotation, "__metadata__", ())
    )


def _is_raw(parameter: Parameter) -> bool:
    return parameter.place == "body" and parameter.annotation is bytes


def _keyword(name: str, annotation: Any, default: Any = EMPTY) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )

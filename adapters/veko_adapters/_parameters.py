"""The parameters of a handler, and which part of a request each comes from.

- A parameter with the name of a path parameter is that one.
- `request` or `req` is the request; so is a sole parameter without annotation and default.
- `data` is the body, and `context` the plugin's context.
- A parameter annotated with a class that msgspec cannot decode is a service; so is one without
  annotation and default that has the name of a service which exists when the route is compiled.
- Every other parameter is in the query.

Without annotation, a path parameter is what its converter returns, and a query parameter is text.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from veko import Context
from veko.errors import RouteError
from veko_plugins.http import SOCKET, Request, Route, WebSocket, parse_path

from ._services import is_there, service_type

__all__ = ["EMPTY", "Location", "Parameter", "is_many", "is_optional", "leaves", "lists_of", "read"]

EMPTY: Final = inspect.Parameter.empty
_REQUEST_NAMES: Final = frozenset(("request", "req"))
_SOCKET_NAMES: Final = frozenset(("socket", "websocket", "ws"))

Location = Literal["request", "path", "query", "body", "context", "service"]
"""The part of a request, or of the plugin, that an argument comes from."""


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a handler.

    Attributes:
        name: Its name.
        location: Where its argument comes from.
        annotation: Its type, resolved; `Any` if it has none that matters.
        default: Its default, or `EMPTY`.
        by_position: Whether it is passed by position: `lambda r, /: …`, or a sole parameter.
        make: Makes a framework's own request from ours, if the parameter asks for one.
    """

    name: str
    location: Location
    annotation: Any = Any
    default: Any = EMPTY
    by_position: bool = False
    make: Callable[[Any], Any] | None = None


def read(
    route: Route,
    context: Context | None = None,
    *,
    requests: Mapping[type, Callable[[Any], Any]] | None = None,
    foreign: Callable[[Any], bool] | None = None,
) -> tuple[Parameter, ...]:
    """Read the signature of a route's handler.

    Args:
        route: The route.
        context: The context of the plugin that has the route; without it, no parameter is a
            service by its name only.
        requests: A framework's classes of requests, and functions that make one from ours.
        foreign: Returns whether the framework handles an annotation.

    Raises:
        RouteError: The handler has no signature, has an annotation that cannot be resolved, or asks
            for the body of a WebSocket.
    """
    fn = route.handler
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError) as error:
        raise _invalid(route, f"has no signature: {error}") from None
    in_path = {segment.text for segment in parse_path(route.path) if segment.converter}
    given = [
        p for p in signature.parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    sole = len(given) == 1
    names = _REQUEST_NAMES | _SOCKET_NAMES if route.method == SOCKET else _REQUEST_NAMES
    found: list[Parameter] = []
    for p in given:
        by_position = p.kind is p.POSITIONAL_ONLY or (sole and p.kind is not p.KEYWORD_ONLY)
        bare = p.annotation is EMPTY and p.default is EMPTY
        location: Location
        annotation: Any = Any
        make: Callable[[Any], Any] | None = None
        if p.name in in_path:
            location = "path"
            annotation = _resolve(route, fn, p)
        elif p.name in names:
            location = "request"
            if requests:
                make = requests.get(_resolved_or_none(route, fn, p))
        else:
            annotation = _resolve(route, fn, p)
            make = requests.get(_hashable(annotation)) if requests else None
            location = _location(route, p, annotation, sole and bare, context, foreign)
            if make is not None:
                location = "request"
        if annotation is EMPTY:
            annotation = str if location == "query" else Any
        found.append(Parameter(p.name, location, annotation, p.default, by_position, make))
    return tuple(found)


def _location(
    route: Route,
    p: inspect.Parameter,
    annotation: Any,
    sole: bool,
    context: Context | None,
    foreign: Callable[[Any], bool] | None,
) -> Location:
    """Return where a parameter comes from that is neither in the path nor named as the request."""
    if isinstance(annotation, type) and issubclass(annotation, Context):
        return "context"
    if annotation is Request or annotation is WebSocket:
        return "request"
    if p.name == "context" and annotation in (EMPTY, Any):
        return "context"
    if p.name == "data":
        if route.method == SOCKET:
            raise _invalid(
                route,
                "has the parameter 'data', but a WebSocket has no body",
                "Use the parameter `socket` and await `socket.receive_json(type)`.",
            )
        return "body"
    if sole:
        return "request"
    if annotation is EMPTY:
        named = p.default is EMPTY and context is not None and is_there(context, p.name)
        return "service" if named else "query"
    if service_type(annotation) is not None and not (foreign is not None and foreign(annotation)):
        return "service"
    return "query"


def _hashable(annotation: Any) -> Any:
    return annotation if isinstance(annotation, type) else None


def _resolved_or_none(route: Route, fn: Callable[..., Any], p: inspect.Parameter) -> Any:
    """Resolve the annotation of a parameter whose name is enough."""
    try:
        return _hashable(_resolve(route, fn, p))
    except RouteError:
        return None


def _resolve(route: Route, fn: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    plain = inspect.unwrap(fn)
    plain = getattr(plain, "__func__", plain)
    names = getattr(plain, "__globals__", None)
    if names is None:
        names = getattr(type(plain).__dict__.get("__call__"), "__globals__", {})
    try:
        return eval(annotation, dict(names))
    except Exception as error:
        raise _invalid(
            route,
            f"annotates {parameter.name!r} with {annotation!r}, which cannot be resolved: {error}",
            "Define or import it at the top of the module.",
        ) from None


def _invalid(route: Route, what: str, remedy: str | None = None) -> RouteError:
    name = getattr(route.handler, "__qualname__", None) or repr(route.handler)
    return RouteError(
        f"the handler {name} of {route.method} {route.path} {what}",
        plugin=route.plugin,
        remedy=remedy,
    )


def is_many(annotation: Any) -> bool:
    """Return whether an annotation takes several values of one name."""
    for option in _options(annotation):
        origin = typing.get_origin(option) or option
        if (
            isinstance(origin, type)
            and issubclass(origin, Collection)
            and not issubclass(origin, (str, bytes, bytearray))
        ):
            return True
    return False


def lists_of(annotation: Any) -> set[str]:
    """Return the names of a class's fields that take several values."""
    found: set[str] = set()
    for option in _options(annotation):
        if not isinstance(option, type):
            continue
        if issubclass(option, msgspec.Struct):
            fields = msgspec.structs.fields(option)
            found.update(one.encode_name for one in fields if is_many(one.type))
            continue
        model: Mapping[str, Any] = getattr(option, "model_fields", None) or {}
        found.update(one.alias or name for name, one in model.items() if is_many(one.annotation))
        if not model:
            hints = typing.get_type_hints(option)
            found.update(name for name, hint in hints.items() if is_many(hint))
    return found


def is_optional(annotation: Any) -> bool:
    """Return whether an annotation takes `None`."""
    return type(None) in _options(annotation)


def leaves(annotation: Any) -> list[Any]:
    """Return the types and the metadata of which an annotation consists."""
    inner = typing.get_args(annotation)
    if not inner:
        return [annotation]
    return [leaf for part in inner for leaf in leaves(part)]


def _options(annotation: Any) -> Sequence[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)

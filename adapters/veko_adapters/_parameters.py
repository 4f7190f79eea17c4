"""What a handler wants: its parameters, and where in a request each comes from.

A parameter of the name of a path parameter is that one; `request` (or `req`) is the request, and
so is a sole parameter without annotation or default that is no path parameter; `data` is the
body; every other one is in the query. Without annotation a path parameter is what its converter
made of it and a query parameter is text.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Literal

import msgspec

from veko.errors import RouteError
from veko_plugins.http import Request, Route, parse_path

__all__ = ["EMPTY", "Parameter", "is_many", "is_optional", "leaves", "read"]

EMPTY: Final = inspect.Parameter.empty
_REQUEST_NAMES: Final = frozenset(("request", "req"))


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a handler.

    Attributes:
        name: Its name.
        place: Where its argument comes from.
        annotation: Its type, resolved; `Any` where it has none that matters.
        default: Its default, or `EMPTY`.
        by_position: Whether it is given by position: `lambda r, /: …`, or a sole parameter.
    """

    name: str
    place: Literal["request", "path", "query", "body"]
    annotation: Any = Any
    default: Any = EMPTY
    by_position: bool = False


def read(route: Route) -> tuple[Parameter, ...]:
    """Read the signature of a route's handler.

    Raises:
        RouteError: It has no signature, an annotation that cannot be resolved, or wants the body
            of a request that has none.
    """
    fn = route.handler
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError) as error:
        raise _unsound(route, f"has no signature: {error}") from None
    in_path = {segment.text: segment.converter for segment in parse_path(route.path)}
    given = [
        p for p in signature.parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    sole = len(given) == 1
    found: list[Parameter] = []
    for p in given:
        converter = in_path.get(p.name)
        annotation: Any = Any
        bare = p.annotation is EMPTY and p.default is EMPTY
        if not converter and (p.name in _REQUEST_NAMES or (sole and bare and p.name != "data")):
            place = "request"
        else:
            place = "path" if converter else "body" if p.name == "data" else "query"
            annotation = _resolve(route, fn, p)
            if annotation is Request:
                place = "request"
            elif annotation is EMPTY:
                annotation = str if place == "query" else Any
        found.append(
            Parameter(
                p.name,
                typing.cast("Any", place),
                annotation,
                p.default,
                p.kind is p.POSITIONAL_ONLY or (sole and p.kind is not p.KEYWORD_ONLY),
            )
        )
    return tuple(found)


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
        raise _unsound(
            route,
            f"annotates {parameter.name!r} with {annotation!r}, which cannot be resolved: {error}",
            "Define or import it at the top of the module.",
        ) from None


def _unsound(route: Route, what: str, remedy: str | None = None) -> RouteError:
    name = getattr(route.handler, "__qualname__", None) or repr(route.handler)
    return RouteError(
        f"the handler {name} of {route.method} {route.path} {what}",
        plugin=route.plugin,
        remedy=remedy,
    )


def is_many(annotation: Any) -> bool:
    """Tell whether an annotation takes several values of one name."""
    for option in _options(annotation):
        origin = typing.get_origin(option) or option
        if (
            isinstance(origin, type)
            and issubclass(origin, Collection)
            and not issubclass(origin, (str, bytes, bytearray))
        ):
            return True
    return False


def is_optional(annotation: Any) -> bool:
    """Tell whether an annotation takes `None`."""
    return type(None) in _options(annotation)


def leaves(annotation: Any) -> list[Any]:
    """Return the types and the metadata that an annotation is made of."""
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

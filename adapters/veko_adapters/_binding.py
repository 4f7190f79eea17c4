"""Binding: a handler's arguments from a request, without a framework.

For each handler a function is generated that goes straight through its parameters. Cost: a path
parameter, which its converter has made, is a lookup; one from the query about 0.3 µs; the body is
decoded straight into its type. Only if something does not fit is the request examined again, to
list all faults.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from types import CodeType
from typing import Any, Final

import msgspec
from msgspec.inspect import AnyType, CustomType, DictType, Metadata, UnionType, type_info

from veko import Context
from veko.errors import RouteError
from veko_plugins.http import Fault, HTTPError, Route, body_faults, parse_path

from ._parameters import EMPTY, Parameter, is_many, is_optional, lists_of
from ._pydantic import InvalidBody, is_model, validate
from ._services import Service, service_type

__all__ = ["Source", "bind", "faults", "settle", "source"]

Source = Callable[[Any], Any]
"""Returns an argument from a request or a WebSocket."""

_FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
_EXACT: Final = {"int": int, "float": float, "str": str, "path": str}
_EXAMINED: Final = 256 * 1024
"""Bytes of a body that is searched for all of its faults; of a longer one the first is reported."""
_FILENAME: Final = "<veko handler>"


async def settle(answer: Any) -> Any:
    """Return an answer, awaited if it is awaitable."""
    return await answer if inspect.isawaitable(answer) else answer


def bind(
    route: Route,
    parameters: Sequence[Parameter],
    context: Context,
    convert: Callable[[Any], Any] | None = None,
) -> Callable[[Any], Coroutine[Any, Any, Any]]:
    """Return an async function that calls a route's handler with its arguments from a request.

    Args:
        route: The route; its handler is `def` or `async def`.
        parameters: The handler's parameters; an optional one that the request lacks is `None`.
        context: The context of the plugin that has the route.
        convert: Makes of the handler's answer what the function returns.

    Raises:
        RouteError: No request can provide a value of a parameter's type.
    """
    handler = route.handler
    sources = [source(route, p, context) for p in parameters]
    asynchronous = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(type(handler), "__call__", None)  # noqa: B004
    )
    plain = all(p.location == "request" and p.make is None for p in parameters)
    alone = len(parameters) == 1 and parameters[0].by_position
    if asynchronous and plain and alone and convert is None:
        return handler

    async def refuse(request: Any) -> HTTPError:
        found = await faults(parameters, sources, request)
        return HTTPError(400, "the request does not fit", errors=found)

    names: dict[str, Any] = {
        "handler": handler,
        "refuse": refuse,
        "isawaitable": inspect.isawaitable,
        "data": _data,
        "convert": functools.partial(msgspec.convert, strict=False, str_keys=True),
        "made_of": convert,
        "EMPTY": EMPTY,
        "UNFIT": (msgspec.DecodeError, UnicodeDecodeError, LookupError),
    }
    exact = {segment.text: _EXACT.get(segment.converter) for segment in parse_path(route.path)}
    lines: list[str] = []
    given: list[str] = []
    for index, (p, take) in enumerate(zip(parameters, sources, strict=True)):
        argument = f"a{index}"
        if p.location == "request" and p.make is None:
            argument = "request"
        elif p.location == "path" and p.annotation in (Any, exact[p.name]):
            lines.append(f"{argument} = request.scope['path_params'][{p.name!r}]")
        elif p.location == "query" and not is_many(p.annotation):
            default = _default(p)
            names |= {f"d{index}": default, f"t{index}": p.annotation}
            otherwise = "raise LookupError" if default is EMPTY else f"{argument} = d{index}"
            lines.append(f"{argument} = request.query.get({p.name!r}, EMPTY)")
            lines.append(f"if {argument} is EMPTY: {otherwise}")
            if p.annotation not in (Any, str):
                lines.append(f"else: {argument} = convert({argument}, t{index})")
        elif p.location == "body":
            # The decoder stands here: a cache of decoders would keep a plugin's types.
            names |= {f"p{index}": p, f"s{index}": take, f"j{index}": _decoder(p)}
            lines.append(f"{argument} = s{index}(await data(request, p{index}, j{index}))")
        else:
            names[f"s{index}"] = take
            lines.append(f"{argument} = s{index}(request)")
        given.append(argument if p.by_position else f"{p.name}={argument}")
    call = f"handler({', '.join(given)})"
    body = ["async def call(request):"]
    if lines:
        body += [" try:", *(f"  {line}" for line in lines)]
        body += [" except UNFIT:", "  raise await refuse(request) from None"]
    body.append(f" answer = {'await ' if asynchronous else ''}{call}")
    if not asynchronous:
        body.append(" if isawaitable(answer): answer = await answer")
    body.append(" return made_of(answer)" if convert else " return answer")
    exec(_code("\n".join(body)), names)
    made: Callable[[Any], Coroutine[Any, Any, Any]] = names["call"]
    return made


@functools.lru_cache(maxsize=1_024)
def _code(source: str) -> CodeType:
    """Return the code of a source: handlers with parameters alike share it, and it has none."""
    return compile(source, _FILENAME, "exec")


def source(route: Route, p: Parameter, context: Context) -> Source:
    """Return a function that returns a parameter's argument from a request.

    For the body, the function gets what `_data` decoded.

    Raises:
        RouteError: No request can provide a value of its type, or several services fit.
    """
    name, annotation, default = p.name, p.annotation, _default(p)
    if p.location == "request":
        return p.make or (lambda request: request)
    if p.location == "context":
        return lambda request: context
    if p.location == "service":
        wanted = None if annotation is Any else service_type(annotation)
        where = f"the handler of {route.method} {route.path}"
        return Service(context, name, wanted, default, where)
    _check(route, p)
    if p.location == "path":
        return lambda request: _convert(request.path_params[name], annotation)
    if p.location == "body":
        return lambda value: _or_default(value, default, name)
    if is_many(annotation):
        return lambda request: _or_default(
            _convert(request.query.getall(name) or EMPTY, annotation), default, name
        )
    if annotation in (Any, str):
        return lambda request: _or_default(request.query.get(name, EMPTY), default, name)
    return lambda request: _or_default(
        _convert(request.query.get(name, EMPTY), annotation), default, name
    )


def _check(route: Route, p: Parameter) -> None:
    if p.annotation is Any or (p.location == "body" and is_model(p.annotation)):
        return
    try:
        decodable = not isinstance(type_info(p.annotation), CustomType)
    except TypeError:
        decodable = False
    if not decodable:
        raise RouteError(
            f"the handler of {route.method} {route.path} annotates {p.name!r} with "
            f"{p.annotation!r}, which cannot be decoded from the {p.location}",
            plugin=route.plugin,
            remedy="Use a type that msgspec can decode, or take the request itself.",
        )


def _convert(value: Any, annotation: Any) -> Any:
    if annotation is Any or type(value) is annotation or value is EMPTY:
        return value
    if annotation is str:
        return str(value)
    return msgspec.convert(value, annotation, strict=False, str_keys=True)


def _default(p: Parameter) -> Any:
    return None if p.default is EMPTY and is_optional(p.annotation) else p.default


def _or_default(value: Any, default: Any, name: str) -> Any:
    if value is not EMPTY:
        return value
    if default is EMPTY:
        raise LookupError(name)
    return default


_Decode = Callable[[bytes], Any]


def _decoder(p: Parameter) -> _Decode:
    if p.annotation is bytes or is_model(p.annotation):
        return bytes  # not asked: see `_data`
    return msgspec.json.Decoder(p.annotation, strict=True).decode


async def _data(request: Any, p: Parameter, decode: _Decode) -> Any:
    """Decode the body: a form if its media type says so, else JSON; `bytes` get it raw.

    Args:
        request: The request.
        p: The parameter.
        decode: Decodes JSON into the parameter's type.

    Raises:
        HTTPError: 415 if it has another media type, or is a form and the type has no fields.
    """
    if p.annotation is bytes:
        return await request.body()
    model = p.annotation if is_model(p.annotation) else None
    kind = _kind(request)
    if kind in _FORMS and (form := await _form(request, p)) is not None:
        return validate(model.model_validate, form) if model else _convert(form, p.annotation)
    body = await request.body()
    if not body:
        return EMPTY
    if kind and kind != "application/json" and not kind.endswith("+json"):
        # A page of another site can send text with the user's cookies, without a CORS preflight.
        raise HTTPError(415, f"expected JSON or a form, got {kind!r}")
    if model is not None:
        return validate(model.model_validate_json, body)
    try:
        return decode(body)
    except RecursionError:
        raise msgspec.DecodeError("is nested too deeply") from None


def _kind(request: Any) -> str:
    for name, value in request.headers.raw:
        if name == b"content-type":
            if value == b"application/json":
                return "application/json"
            kind: str = value.decode("latin-1")
            return kind.partition(";")[0].strip().lower()
    return ""


def _takes_form(annotation: Any) -> bool:
    """Return whether a type has fields; text, say, would get the fields as Python writes them."""
    if annotation is Any or is_model(annotation):
        return True
    known = type_info(annotation)
    options = known.types if isinstance(known, UnionType) else (known,)
    plain = [one.type if isinstance(one, Metadata) else one for one in options]
    return any(isinstance(one, AnyType | DictType) or hasattr(one, "fields") for one in plain)


async def _form(request: Any, p: Parameter) -> dict[str, Any] | None:
    if _kind(request) not in _FORMS:
        return None
    if not _takes_form(p.annotation):
        name = getattr(p.annotation, "__name__", str(p.annotation))
        raise HTTPError(415, f"a form cannot be read as {name}: send JSON (application/json)")
    form = await request.form()
    many, lists = {name: form.getall(name) for name in form}, lists_of(p.annotation)
    return {
        name: found if len(found) > 1 or name in lists else found[0] for name, found in many.items()
    }


async def faults(
    parameters: Sequence[Parameter], sources: Sequence[Source], request: Any
) -> list[Fault]:
    """List everything that is wrong with a request's arguments, each with its location."""
    found: list[Fault] = []
    for p, take in zip(parameters, sources, strict=True):
        if p.location not in ("path", "query", "body"):
            continue
        shown = "" if p.location == "body" else p.name
        try:
            take(await _data(request, p, _decoder(p)) if p.location == "body" else request)
        except LookupError:
            found.append(Fault("is missing", p.location, shown))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if p.location == "body":
                found += await _faults_of_body(request, p, error)
                continue
            found.append(_fault(error, p.location, shown))
    return found


async def _faults_of_body(request: Any, p: Parameter, error: Exception) -> list[Fault]:
    if isinstance(error, InvalidBody):
        return list(error.faults)
    if isinstance(error, msgspec.ValidationError) and len(await request.body()) <= _EXAMINED:
        form = await _form(request, p)
        try:
            value = msgspec.json.decode(await request.body()) if form is None else form
            found = body_faults(value, p.annotation, strict=form is None)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = []  # it is not even JSON, or not a form
        if found:
            return found
    return [_fault(error, "body")]


def _fault(error: Exception, location: str, name: str = "") -> Fault:
    if isinstance(error, msgspec.DecodeError):
        return Fault.of(error, location, name)
    return Fault(str(error), location, name)  # it is not UTF-8

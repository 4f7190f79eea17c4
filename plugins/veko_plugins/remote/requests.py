"""Requests and responses across the border: handlers and middlewares of a worker.

Cost: the value of a request is built straight from the ASGI scope and encoded once, in C; a body is
never parsed here, and a response goes out as the bytes that came.
"""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from veko.errors import RouteError

from ..http import HTTPError, Request, Response, WebSocket
from .protocol import RemoteFunction, is_plain
from .python.errors import across, state_of
from .python.kinds import Marked
from .worker import WorkerLost

if TYPE_CHECKING:
    from .life import Life

__all__ = [
    "change_request", "change_response", "current", "facts_of", "handler_of", "request_value",
    "response_of", "response_value", "state_value", "take_state", "unavailable",
]  # fmt: skip

_WHOLE: Final = 256 * 2**10
"""Bytes of a body that is read before the worker is called; a longer one is streamed to it."""
_CHUNK: Final = 64 * 2**10
_encode: Final = msgspec.json.Encoder().encode
current: Final[contextvars.ContextVar[Request | WebSocket | None]] = contextvars.ContextVar(
    "veko_request", default=None
)
"""The request that is being handled by a worker, for functions of the host that it calls."""


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in raw:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        if key not in found:
            found[key] = text
        elif isinstance(known := found[key], list):
            known.append(text)
        else:
            found[key] = [known, text]
    return found


def _query(request: Any) -> dict[str, Any]:
    if not request.scope.get("query_string"):
        return {}
    query, found = request.query, dict[str, Any]()
    for name in query:
        values = query.getall(name)
        found[name] = values if len(values) > 1 else values[0]
    return found


def _params(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, str | int | float) else str(value)
        for name, value in params.items()
    }


def facts_of(connection: Any) -> dict[str, Any]:
    """Return what a worker gets of a request, or of a WebSocket's handshake, but for the body."""
    scope = connection.scope
    query = scope.get("query_string", b"")
    path = connection.path
    raw = scope.get("raw_path")
    sent = raw.decode("latin-1").partition("?")[0] if raw and path == scope["path"] else path
    headers = _headers(connection.headers.raw)
    client, server = scope.get("client"), scope.get("server")
    host = headers.get("host") or (server[0] if server else "localhost")
    route = connection.route
    return {
        "url": f"{sent}?{query.decode('latin-1')}" if query else sent,
        "path": path,
        "scheme": scope.get("scheme", "http"),
        "host": host if isinstance(host, str) else host[0],
        "params": _params(connection.path_params),
        "query": _query(connection),
        "headers": headers,
        "ip": client[0] if client else None,
        "port": client[1] if client else None,
        "route": None
        if route is None
        else {"method": route.method, "path": route.path, "plugin": route.plugin},
    }


def state_value(request: Any) -> dict[str, Any]:
    """Return the state; what neither is data nor came from a worker stays at the host."""
    return {
        key: value
        for key, value in request.state.items()
        if is_plain(value) or isinstance(value, RemoteFunction)
    }


async def request_value(request: Request) -> Marked:
    """Return a request as it crosses; a body that is not long is read for that."""
    facts = facts_of(request)
    facts["method"] = request.method
    facts["state"] = state = state_value(request) if request.state else {}
    body = await _body(request)
    if body is None and is_plain(state):
        facts["body"] = None
        return Marked("request", msgspec.Raw(_encode(facts)))
    facts["body"] = body
    return Marked("request", facts)


async def _body(request: Request) -> bytes | AsyncIterator[bytes] | None:
    if request.kept is not None:
        return request.kept or None
    length: bytes | None = None
    for name, value in request.scope["headers"]:
        if name == b"content-length":
            length = value
        elif name == b"transfer-encoding":
            return _stream(request)
    if length is None or length == b"0":
        return None
    if length.isdigit() and int(length) <= _WHOLE:
        return await request.body()
    return _stream(request)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    """Yield the body when it is asked for. It is kept, for other plugins that want it."""
    body = await request.body()
    for start in range(0, len(body), _CHUNK):
        yield body[start : start + _CHUNK]


def change_request(request: Request, changes: object) -> None:
    """Make the changes of a worker's copy of a request to the request.

    Raises:
        ValueError: They are malformed.
    """
    if not isinstance(changes, Mapping):
        raise ValueError("the changes of a request are no object")
    state = changes.get("state")
    if isinstance(state, Mapping):
        kept = {k: v for k, v in request.state.items() if k not in state_value(request)}
        request.state.clear()
        request.state.update(kept | dict(state))
    scope, before = request.scope, len(changes)
    if isinstance(method := changes.get("method"), str):
        scope["method"] = method.upper()
    if isinstance(path := changes.get("path"), str):
        scope["path"] = path
        scope["raw_path"] = path.encode("latin-1", "replace")
    query = changes.get("query")
    if isinstance(query, str):
        scope["query_string"] = query.encode("latin-1", "replace")
    elif isinstance(url := changes.get("url"), str) and "?" in url:
        scope["query_string"] = url.partition("?")[2].encode("latin-1", "replace")
    if isinstance(params := changes.get("params"), Mapping):
        scope["path_params"] = dict(params)
    headers = changes.get("headers")
    if headers is not None:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        scope["headers"] = [
            (str(name).lower().encode("latin-1"), str(one).encode("latin-1"))
            for name, value in pairs
            for one in (value if isinstance(value, list) else [value])
        ]
    if before > ("state" in changes):
        request.forget()


def response_value(response: Response) -> dict[str, Any]:
    """Return a response as it crosses; a stream goes along unread."""
    raw = response.headers.raw
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
    body: Any = response.stream if response.stream is not None else response.body or None
    return {"status": response.status, "headers": headers, "body": body}


def response_of(answer: object) -> Response:
    """Return the response that a worker answered with.

    Raises:
        RouteError: It is malformed.
    """
    if isinstance(answer, Mapping):
        answer = [answer.get("status"), answer.get("headers"), answer.get("body")]
    if not isinstance(answer, list) or len(answer) < 3:
        raise RouteError("its process answered with something else than a response")
    status, headers, body = answer[:3]
    if type(status) is not int:
        raise RouteError(f"its process answered with the status {status!r}")
    try:
        raw = _raw(headers)
        if body is None:
            return Response.received(status, raw, b"")
        if isinstance(body, str):
            return Response.received(status, raw, body.encode("utf-8", "replace"))
        if isinstance(body, bytes):
            return Response.received(status, raw, body)
        response = Response.received(status, raw, None)
    except (ValueError, TypeError) as error:
        raise RouteError(
            f"its process answered with a response that is not valid: {error}"
        ) from None
    if not hasattr(body, "__anext__"):
        raise RouteError("its process answered with a body that is neither text nor bytes")
    response.stream = _chunks(body)
    return response


async def _chunks(body: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield the chunks of a worker; what it raises is raised as the class that it was."""
    try:
        while True:
            try:
                chunk = await across(anext(body))
            except StopAsyncIteration:
                return
            yield chunk
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()


def _raw(headers: Any) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    for name, value in headers or ():
        raw = name.lower().encode("latin-1")
        if raw != b"transfer-encoding":
            found.append((raw, value.encode("latin-1")))
    return found


def change_response(response: Response, changes: object) -> None:
    """Make the changes of a worker's copy of a response to the response."""
    if not isinstance(changes, Mapping):
        raise ValueError("the changes of a response are no object")
    if type(status := changes.get("status")) is int:
        response.status = status
    if (headers := changes.get("headers")) is not None:
        response.headers.raw[:] = Response.received(200, _raw(headers), b"").headers.raw
    body = changes.get("body")
    if isinstance(body, str | bytes):
        response.body = body.encode() if isinstance(body, str) else body


def take_state(request: Any, state: object) -> None:
    """Take what a worker has left in the state of a request or a WebSocket."""
    if isinstance(state, Mapping):
        request.state.update(state)


def handler_of(life: Life, fn: RemoteFunction) -> Callable[[Request], Any]:
    """Return the handler of a route whose function is in a worker."""
    name = life.name

    async def handler(request: Request) -> Response:
        if life.down:
            raise unavailable(name)
        token = current.set(request)
        try:
            answer = await life.call(fn, await request_value(request))
        except WorkerLost:
            raise unavailable(name) from None
        except Exception as error:
            take_state(request, state_of(error))
            raise
        finally:
            current.reset(token)
        if isinstance(answer, list) and len(answer) > 3 and answer[3]:
            take_state(request, answer[3])
        return response_of(answer)

    handler.__name__ = handler.__qualname__ = fn.name or "handler"
    vars(handler)["remote"] = fn
    return handler


def unavailable(plugin: str) -> HTTPError:
    from .life import unavailable

    return unavailable(plugin)

"""Requests and responses between a worker's real classes and what crosses the border.

A request that arrives is one object for the hook, the middleware or the handler that it is for. Its
`state` is the host's; what cannot cross (an object of the plugin's own that a middleware left for
the handler) stays in the worker and comes back as the same object.

Cost: a dictionary and three objects a request; headers are encoded once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final, cast
from urllib.parse import quote

from ...http import ROUTE, Request, Response, Route, WebSocket
from ..protocol import is_plain
from .errors import across

__all__ = [
    "Kept", "Seen", "ended", "from_response", "make_request", "make_scope", "received_state",
    "request_value", "response_value", "sent_state", "to_response",
]  # fmt: skip

_ASGI: Final = {"version": "3.0", "spec_version": "2.5"}
_NO_LIMIT: Final = 2**62
"""Bytes of a body: the host has applied its limit already."""
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Kept:
    """Something of the plugin's own in `request.state`, which only this worker can use.

    It crosses as a function does, and comes back as itself.

    Args:
        value: What it stands for.
    """

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __call__(self, *args: object) -> object:
        """Refuse to be called: it is no function."""
        kind = type(self.value).__qualname__
        raise TypeError(f"this is {kind!r} of another process; put JSON-able data into the state")


def sent_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's state as it crosses the border."""
    return {
        str(key): value if is_plain(value) or _crosses(value) else Kept(value)
        for key, value in state.items()
    }


def _crosses(value: object) -> bool:
    return isinstance(value, bytes | Kept) or hasattr(type(value), "connection")


def received_state(state: object) -> dict[str, Any]:
    """Return a request's state that arrived; what was kept here is itself again."""
    found = cast("dict[str, Any]", state) if isinstance(state, dict) else {}
    return {k: v.value if type(v) is Kept else v for k, v in found.items()}


def make_scope(wire: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the ASGI scope of a request or a socket that arrived.

    Args:
        wire: The request's or socket's value.
        kind: `http` or `websocket`.
    """
    url = str(wire.get("url") or wire.get("path") or "/")
    raw_path, _, query = url.partition("?")
    scheme = str(wire.get("scheme") or ("http" if kind == "http" else "ws"))
    name, _, port = str(wire.get("host") or "localhost").rpartition(":")
    if not port.isdecimal():
        name, port = f"{name}:{port}" if name else port, ""
    path = wire.get("path")
    scope: dict[str, Any] = {
        "type": kind,
        "asgi": _ASGI,
        "http_version": "1.1",
        "scheme": scheme,
        "server": (name, int(port) if port else _PORTS.get(scheme, 80)),
        "path": path if isinstance(path, str) else raw_path,
        "raw_path": quote(raw_path, safe="/%:@!$&'()*+,;=~-._").encode("ascii", "replace"),
        "root_path": "",
        "query_string": query.encode("latin-1", "replace"),
        "headers": _headers(wire.get("headers")),
        "path_params": dict(wire.get("params") or {}),
        "veko.max_body": _NO_LIMIT,
        ROUTE: None,
    }
    if wire.get("ip"):
        scope["client"] = (wire["ip"], wire.get("port") or 0)
    if kind == "http":
        scope["method"] = str(wire.get("method") or "GET")
    route = wire.get("route")
    if isinstance(route, dict):
        scope[ROUTE] = Route(
            str(route.get("method")), str(route.get("path")), _elsewhere,
            plugin=str(route.get("plugin") or ""),
        )  # fmt: skip
    return scope


def _elsewhere(*args: object) -> object:
    """Stand for the handler of a route that another process has."""
    raise TypeError("the handler of this route runs in another process")


def _headers(given: object) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    pairs: Iterable[Any] = given.items() if isinstance(given, Mapping) else given or ()  # type: ignore[assignment]
    for name, value in pairs:
        raw = str(name).lower().encode("latin-1", "replace")
        for one in value if isinstance(value, list) else (value,):
            found.append((raw, str(one).encode("latin-1", "replace")))
    return found


def make_request(wire: Mapping[str, Any]) -> Request:
    """Return the request that arrived."""
    scope = make_scope(wire, "http")
    body = wire.get("body")
    request: Request
    if body is None or isinstance(body, bytes | str):
        raw = body.encode() if isinstance(body, str) else body or b""
        request = Request(scope, ended)
        request.keep(raw)
    else:
        request = Request(scope, _Body(aiter(body)))
    request.state = received_state(wire.get("state"))
    return request


async def ended() -> dict[str, Any]:
    """ASGI's receive of a request whose body has arrived."""
    return {"type": "http.request", "body": b"", "more_body": False}


class _Body:
    """ASGI's receive over the chunks of a body."""

    __slots__ = ("_chunks",)

    def __init__(self, chunks: AsyncIterator[Any]) -> None:
        self._chunks = chunks

    async def __call__(self) -> dict[str, Any]:
        try:
            chunk = await across(anext(self._chunks))
        except StopAsyncIteration:
            return await ended()
        data = chunk.encode() if isinstance(chunk, str) else bytes(chunk)
        return {"type": "http.request", "body": data, "more_body": True}


def from_response(response: Response) -> tuple[int, list[tuple[str, str]], Any]:
    """Return status, headers and body of a response, as they cross the border."""
    headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in response.headers.raw]
    if response.stream is not None:
        return response.status, headers, response.stream
    return response.status, headers, response.body or None


def to_response(wire: Any) -> Response:
    """Return the response that arrived: `{status, headers, body}`, or a list of the three.

    Raises:
        ValueError: It is not valid.
    """
    if isinstance(wire, Mapping):
        status, headers, body = wire.get("status"), wire.get("headers"), wire.get("body")
    else:
        status, headers, body, *_ = wire
    if type(status) is not int:
        raise ValueError(f"the status of a response is {status!r}")
    raw = _headers(headers)
    if body is None or isinstance(body, str | bytes):
        data = body.encode() if isinstance(body, str) else body or b""
        return Response.received(status, raw, data)
    response = Response.received(status, raw, None)
    response.stream = aiter(body)
    return response


class Seen:
    """An argument of a hook, and how it was before the hook ran.

    Args:
        value: The request, the response or the WebSocket.
    """

    __slots__ = ("_before", "value")

    def __init__(self, value: Request | Response | WebSocket) -> None:
        self.value = value
        self._before = self._look()

    def _look(self) -> tuple[Any, ...]:
        value = self.value
        if isinstance(value, Response):
            return value.status, tuple(value.headers.raw), value.body, value.stream
        scope = value.scope
        if isinstance(value, WebSocket):
            return (bool(value.state),)
        return (
            scope["method"], scope["path"], scope["query_string"], tuple(value.headers.raw),
            bool(value.state),
        )  # fmt: skip

    def changes(self) -> dict[str, Any] | None:
        """Return what the hook has changed in it, as it crosses the border; `None` if nothing."""
        value, now = self.value, self._look()
        if isinstance(value, Response):
            return None if now == self._before else response_value(value)
        changed: dict[str, Any] = {}
        if isinstance(value, WebSocket):
            return {"state": sent_state(value.state)} if now[0] or self._before[0] else None
        if now[0] != self._before[0]:
            changed["method"] = now[0]
        if now[1:3] != self._before[1:3]:
            changed["path"], changed["query"] = now[1], now[2].decode("latin-1")
        if now[3] != self._before[3]:
            changed["headers"] = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in now[3]]
        if now[4] or self._before[4]:
            changed["state"] = sent_state(value.state)
        return changed or None


def response_value(response: Response) -> dict[str, Any]:
    """Return a response as the value that a hook answers with."""
    status, headers, body = from_response(response)
    return {"status": status, "headers": headers, "body": body}


def request_value(request: Request) -> dict[str, Any]:
    """Return a request that a hook made, as the value that it answers with."""
    scope = request.scope
    return {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope.get("query_string", b"").decode("latin-1"),
        "headers": [(n.decode("latin-1"), v.decode("latin-1")) for n, v in request.headers.raw],
        "body": request.kept,
        "state": sent_state(request.state),
    }

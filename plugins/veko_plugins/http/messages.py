"""Request and Route: what handlers, hooks and middleware hold in their hands.

A request is made of the ASGI scope and worked out only where it is touched: a slot that nobody
has filled yet is computed at its first use, so one that nobody looks at costs its constructor.
There is one object for a request, from its first hook to its last; it lies in the scope under
`REQUEST`, for handlers of any framework.
"""

from __future__ import annotations

import re
from collections.abc import (
    AsyncIterator,
    Callable,
    MutableMapping,
)
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from veko.errors import RouteError

from .forms import Fields, Upload, parse_form, parse_query
from .headers import Headers
from .problem import HTTPError

__all__ = ["REQUEST", "Address", "Message", "Receive", "Request", "Route", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Message], Any]

REQUEST: Final = "veko.request"
"""The key under which the request lies in the ASGI scope."""
ROUTE: Final = "veko.route"
MAX_BODY: Final = 10 * 1024 * 1024
"""Bytes of a body that `Request.body` reads unless the scope says otherwise under `LIMIT`."""
LIMIT: Final = "veko.max_body"
_REPLAYED: Final = "veko.replayed"

_HOST: Final = re.compile(r"[A-Za-z0-9.\-_]+(:[0-9]+)?|\[[0-9a-fA-F:.]+\](:[0-9]+)?", re.ASCII)


class Address(NamedTuple):
    """Where a client called from."""

    host: str
    port: int


class Route(msgspec.Struct, frozen=True):
    """A route as it goes live; `msgspec.structs.replace` makes another one of it.

    Attributes:
        method: The method in capitals.
        path: The path, parameters as `{name}` or `{name:converter}`.
        handler: What answers it.
        middlewares: What stands around the handler, the outermost first.
        plugin: The name of the plugin that has it.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    middlewares: tuple[Callable[..., Any], ...] = ()
    plugin: str = ""


class Request:
    """A request, worked out as far as it is looked at.

    Args:
        scope: The ASGI scope.
        receive: ASGI's receive.

    Attributes:
        scope: The ASGI scope, for what is not here.
        headers: The headers, whatever their case.
        query: The query parameters; where one comes twice, the last, `getall` gives all.
        cookies: The cookies.
        client: Host and port of the client, if the server knows them.
        path_params: The path parameters, converted.
        state: A dictionary for hooks and middleware to leave things in.
    """

    __slots__ = (
        "_body", "_form", "_read", "_receive", "client", "cookies", "headers", "query", "scope",
        "state",
    )  # fmt: skip

    scope: Scope
    headers: Headers
    query: Fields[str]
    cookies: dict[str, str]
    client: Address | None
    state: dict[str, Any]
    _form: Fields[str | Upload] | None

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self._body: bytes | None = None
        self._read = False

    def __getattr__(self, name: str) -> Any:
        make = _LAZY.get(name)
        if make is None:
            raise AttributeError(f"a request has no {name!r}")
        value = make(self.scope)
        setattr(self, name, value)
        return value

    @property
    def method(self) -> str:
        """The method in capitals."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The decoded path, below where the application is mounted."""
        return path_of(self.scope)

    @property
    def path_params(self) -> dict[str, Any]:
        """The path parameters, converted."""
        found: dict[str, Any] = self.scope.get("path_params") or {}
        return found

    @property
    def route(self) -> Route | None:
        """The route that answers, `None` where no route has this path and method."""
        return self.scope.get(ROUTE)

    @property
    def url(self) -> str:
        """The whole URL, with the host that the client asked for."""
        scope = self.scope
        host = self.headers.get("host", "")
        if not _HOST.fullmatch(host):
            name, port = scope.get("server") or ("localhost", None)
            host = f"{name}:{port}" if port else str(name)
        query = scope.get("query_string", b"").decode("latin-1")
        path = quote(scope["path"], safe="/:@!$&'()*+,;=~-._")
        return f"{scope.get('scheme', 'http')}://{host}{path}" + (f"?{query}" if query else "")

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the body in chunks as they come, once; or as a whole if it was read before.

        Raises:
            HTTPError: 413 if it is longer than allowed, 400 if the client went away.
            RouteError: It was streamed before.
        """
        if self._body is not None:
            yield self._body
            return
        if self._read:
            raise RouteError(
                "the body was read already, and not kept",
                remedy="Where several want it, let each `await request.body()`.",
            )
        limit = self.scope.get(LIMIT, MAX_BODY)
        if (announced := self.headers.get("content-length", "")).isdecimal():
            _check_length(int(announced), limit)
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise HTTPError(400, "the client went away before its body was read")
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            self._read = not more
            size += len(chunk)
            _check_length(size, limit)
            if chunk:
                yield chunk

    async def body(self) -> bytes:
        """Read the whole body, once for all who ask."""
        if self._body is None:
            self.keep(b"".join([chunk async for chunk in self.stream()]))
        return self._body or b""

    def keep(self, body: bytes) -> None:
        """Keep a body that a framework read, for whoever asks next."""
        self._body, self._read = body, True

    @property
    def kept(self) -> bytes | None:
        """The body, if somebody has read and kept it."""
        return self._body

    @property
    def read(self) -> bool:
        """Whether no more of the body will come."""
        return self._read or not any(
            name in {b"content-length", b"transfer-encoding"} for name, _ in self.scope["headers"]
        )

    async def receive(self) -> Message:
        """ASGI's receive, for an endpoint: a body that was kept comes once more."""
        if self._body is not None and not self.scope.get(_REPLAYED):
            self.scope[_REPLAYED] = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        message: Message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._read = True
        return message

    async def json(self) -> Any:
        """Decode the body as JSON.

        Raises:
            HTTPError: 400 if it is none.
        """
        try:
            return msgspec.json.decode(await self.body())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HTTPError(400, f"the body is no JSON: {error}") from None

    async def form(self) -> Fields[str | Upload]:
        """Decode the body as a form, URL-encoded or multipart.

        Raises:
            HTTPError: 415 if it is neither, 400 if it is malformed.
        """
        if self._form is None:
            self._form = parse_form(self.headers.get("content-type", ""), await self.body())
        return self._form

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"


def path_of(scope: Scope) -> str:
    """Return the path below the application's mount."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("/", ""):
        return path[len(root) :] or "/"
    return path


def _check_length(size: int, limit: int) -> None:
    if size > limit:
        raise HTTPError(413, f"the body is longer than {limit} bytes")


def _cookies(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for header in Headers(scope["headers"]).getall("cookie"):
        for item in header.split(";"):
            name, equals, value = item.strip().partition("=")
            if equals and name:
                quoted = len(value) > 1 and value[0] == value[-1] == '"'
                found[name] = value[1:-1] if quoted else value
    return found


def _client(scope: Scope) -> Address | None:
    client = scope.get("client")
    return Address(*client) if client else None


def _nothing(scope: Scope) -> None:
    del scope


_LAZY: Final[dict[str, Callable[[Scope], Any]]] = {
    "headers": lambda scope: Headers(list(scope["headers"])),
    "query": lambda scope: parse_query(scope.get("query_string", b"")),
    "cookies": _cookies,
    "client": _client,
    "state": lambda scope: {},
    "_form": _nothing,
}

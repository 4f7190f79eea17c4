"""Connection: what a request and a WebSocket have in common.

It is made of the ASGI scope and worked out only where it is touched: a slot that nobody has
filled yet is computed at its first use, so one that nobody looks at costs nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from ..route import Route
from .asgi import ROUTE, Scope, path_of
from .forms import Fields, parse_query
from .headers import Headers

__all__ = ["Address", "Connection"]

_HOST: Final = re.compile(r"[A-Za-z0-9.\-_]+(:[0-9]+)?|\[[0-9a-fA-F:.]+\](:[0-9]+)?", re.ASCII)


class Address(NamedTuple):
    """Where a client called from."""

    host: str
    port: int


class Connection:
    """Who calls and what for.

    Attributes:
        scope: The ASGI scope, for what is not here.
        headers: The headers, whatever their case.
        query: The query parameters; where one comes twice, the last, `getall` gives all.
        cookies: The cookies.
        client: Host and port of the client, if the server knows them.
        state: A dictionary for hooks and middleware to leave things in.
    """

    __slots__ = ("client", "cookies", "headers", "query", "scope", "state")

    scope: Scope
    headers: Headers
    query: Fields[str]
    cookies: dict[str, str]
    client: Address | None
    state: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        make = _LAZY.get(name)
        if make is None:
            raise AttributeError(f"a {type(self).__name__} has no {name!r}", name=name, obj=self)
        value = make(self.scope)
        setattr(self, name, value)
        return value

    def forget(self) -> None:
        """Work out anew what comes from the scope; for when it is replaced."""
        for name in ("headers", "query", "cookies", "client"):
            with contextlib.suppress(AttributeError):  # nobody has looked at it yet
                delattr(self, name)

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


_LAZY: Final[dict[str, Callable[[Scope], Any]]] = {
    "headers": lambda scope: Headers(list(scope["headers"])),
    "query": lambda scope: parse_query(scope.get("query_string", b"")),
    "cookies": _cookies,
    "client": _client,
    "state": lambda scope: {},
}

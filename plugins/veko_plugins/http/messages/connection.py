"""Connection: what a request and a WebSocket have in common.

It reads the ASGI scope lazily: an attribute is computed at its first use and costs nothing before.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from ..route import Route
from .asgi import ROUTE, Scope, path_of
from .cookies import parse_cookies
from .forms import Fields, parse_query
from .headers import Headers

__all__ = ["Address", "Connection"]

_HOST: Final = re.compile(r"[A-Za-z0-9.\-_]+(:[0-9]+)?|\[[0-9a-fA-F:.]+\](:[0-9]+)?", re.ASCII)


class Address(NamedTuple):
    """The address of a client.

    Attributes:
        host: The IP address.
        port: The port.
    """

    host: str
    port: int


class Connection:
    """One connection of a client: the part that requests and WebSockets share.

    Attributes:
        scope: The ASGI scope, for everything else.
        headers: The headers; names are case-insensitive.
        query: The query parameters. `query[name]` is the last value of a repeated name, and
            `query.getall(name)` are all.
        cookies: The cookies that the client sent.
        client: The address of the client; `None` if the server does not know it.
        state: A dictionary in which hooks and middleware pass on what they want.
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
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}", name=name, obj=self
            )
        value = make(self.scope)
        setattr(self, name, value)
        return value

    def forget(self) -> None:
        """Forget what was computed from the scope, which was replaced."""
        for name in ("headers", "query", "cookies", "client"):
            with contextlib.suppress(AttributeError):  # it was never computed
                delattr(self, name)

    @property
    def path(self) -> str:
        """The decoded path, relative to where the application is mounted."""
        return path_of(self.scope)

    @property
    def path_params(self) -> dict[str, Any]:
        """The path parameters, converted."""
        found: dict[str, Any] = self.scope.get("path_params") or {}
        return found

    @property
    def route(self) -> Route | None:
        """The matching route; `None` if no route matches."""
        return self.scope.get(ROUTE)

    @property
    def url(self) -> str:
        """The full URL, with the host from the `Host` header."""
        scope = self.scope
        host = self.headers.get("host", "")
        if not _HOST.fullmatch(host):
            name, port = scope.get("server") or ("localhost", None)
            host = f"{name}:{port}" if port else str(name)
        query = scope.get("query_string", b"").decode("latin-1")
        path = quote(scope["path"], safe="/:@!$&'()*+,;=~-._")
        return f"{scope.get('scheme', 'http')}://{host}{path}" + (f"?{query}" if query else "")


def _client(scope: Scope) -> Address | None:
    client = scope.get("client")
    return Address(*client) if client else None


_LAZY: Final[dict[str, Callable[[Scope], Any]]] = {
    "headers": lambda scope: Headers(list(scope["headers"])),
    "query": lambda scope: parse_query(scope.get("query_string", b"")),
    "cookies": lambda scope: parse_cookies(Headers(scope["headers"]).getall("cookie")),
    "client": _client,
    "state": lambda scope: {},
}

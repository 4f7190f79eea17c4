"""What the middleware needs of requests and responses: a part of those of `veko_plugins.http`.

A core plugin does not import another one; it gets the class of responses from the service `http`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias, overload

__all__ = [
    "CallNext", "HeadersLike", "Middleware", "RawHeaders", "Received", "RequestLike",
    "ResponseLike", "marked",
]  # fmt: skip

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]


class HeadersLike(Protocol):
    """The headers of a request or response."""

    raw: RawHeaders

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, default: str, /) -> str: ...
    def getall(self, name: str, /) -> list[str]: ...
    def add(self, name: str, value: str, /) -> None: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __setitem__(self, name: str, value: str, /) -> None: ...


class RequestLike(Protocol):
    """`veko_plugins.http.Request`, as far as it is used here."""

    scope: Any

    @property
    def path(self) -> str: ...
    @property
    def headers(self) -> HeadersLike: ...


class ResponseLike(Protocol):
    """`veko_plugins.http.Response`, as far as it is used here."""

    status: int
    stream: Any

    @property
    def headers(self) -> HeadersLike: ...
    @property
    def body(self) -> bytes | None: ...


CallNext: TypeAlias = Callable[[RequestLike], Awaitable[ResponseLike]]
Received: TypeAlias = Callable[[int, RawHeaders, bytes], ResponseLike]
"""Makes a response of status, headers and body."""
Middleware: TypeAlias = Callable[[Any, Callable[[Any], Awaitable[Any]]], Awaitable[Any]]
"""What `add_route` and `add_middleware` take."""


def marked(response: ResponseLike, status: str) -> ResponseLike:
    """Say in `Cache-Status` (RFC 9211) where a response comes from."""
    response.headers.raw.append((b"cache-status", b"Veko; " + status.encode()))
    return response

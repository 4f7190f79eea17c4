"""What `auth` needs of a request, a response and the storage, which are other core plugins' own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol

__all__ = ["Busy", "Connection", "Engine", "Namespace", "Refuse", "Response"]


class Busy(Exception):
    """Too much is waited for: passwords that are hashed, a storage that does not answer."""


class Connection(Protocol):
    """A `Request` or a `WebSocket`."""

    @property
    def method(self) -> str: ...
    @property
    def headers(self) -> Any: ...
    @property
    def cookies(self) -> dict[str, str]: ...
    @property
    def client(self) -> Any: ...
    @property
    def state(self) -> dict[str, Any]: ...
    @property
    def scope(self) -> Any: ...


class Response(Protocol):
    """A `Response`."""

    @property
    def headers(self) -> Any: ...
    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = ...,
        secure: bool = ...,
        httponly: bool = ...,
        samesite: Literal["lax", "strict", "none"] = ...,
    ) -> None: ...


class Namespace(Protocol):
    """The storage of this plugin."""

    def get(self, key: str, default: Any = ..., /) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...
    async def compare_and_set(
        self, key: str, expected: object, value: object, *, ttl: float | None = ...
    ) -> bool: ...


class Engine(Protocol):
    """The storage's engine."""

    @property
    def current(self) -> bool: ...
    @property
    def shared(self) -> bool: ...


class Refuse(Protocol):
    """Returns the error with which a request is refused."""

    def __call__(
        self,
        status: int,
        detail: str = ...,
        headers: Mapping[str, str] | None = ...,
        *,
        counts: bool = ...,
    ) -> Exception: ...

"""Guards: middlewares that let a request or a WebSocket pass if its user has the permissions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from .events import User
from .open_sockets import OpenSockets
from .tokens import Claims
from .types import Connection, Refuse

__all__ = ["Guard", "Identity"]

_SOCKET: Final = "WEBSOCKET"


class Identity:
    """Whose session a request belongs to.

    Attributes:
        user: The user.
        claims: What the token states.
        csrf: The session's CSRF token.
    """

    __slots__ = ("claims", "csrf", "user")

    def __init__(self, user: User, claims: Claims, csrf: str) -> None:
        self.user = user
        self.claims = claims
        self.csrf = csrf


class _Auth(Protocol):
    """What guards need of the service."""

    open_sockets: OpenSockets
    redirect: Callable[[str], Any]
    refuse: Refuse
    schemes: dict[str, dict[str, str]]

    async def identify(self, request: Connection) -> Identity: ...


class Guard:
    """A middleware; see `Auth.require`.

    Args:
        auth: The service.
        permissions: What the user must have, all of it.
        login: The path of a page for browsers that ask for a page without a login.

    Attributes:
        security: The security schemes of what it guards, for the OpenAPI document.

    Raises:
        ValueError: A permission is not a text.
    """

    def __init__(self, auth: _Auth, permissions: tuple[object, ...], login: str | None) -> None:
        self._permissions: list[str] = []
        for one in permissions:
            if not isinstance(one, str) or not one:
                raise ValueError(
                    f"a permission is a text, got {one!r}; write "
                    'add_route("GET", path, auth.require("read"), handler)'
                )
            self._permissions.append(one)
        self.security = auth.schemes
        self._auth = auth
        self._login = login

    async def __call__(self, request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        """Let a request or a WebSocket pass, or refuse it."""
        try:
            found = await self._auth.identify(request)
        except Exception as error:
            if self._login is None or getattr(error, "status", 0) != 401 or not _is_page(request):
                raise
            return self._auth.redirect(self._login)
        if not found.user.may(*self._permissions):
            raise self._auth.refuse(403, "a permission is missing")
        request.state["user"] = found.user
        if request.method == _SOCKET:
            with self._auth.open_sockets.watched(request, found.claims):
                return await call_next(request)
        response = await call_next(request)
        if "cache-control" not in response.headers:
            # It is for this user: neither a cache nor the browser's history may show it to others.
            response.headers["cache-control"] = "no-store"
        return response

    def __repr__(self) -> str:
        return f"auth.require({', '.join(map(repr, self._permissions))})"


def _is_page(request: Any) -> bool:
    """Return whether a browser asks for a page."""
    return request.method in {"GET", "HEAD"} and "text/html" in request.headers.get("accept", "")

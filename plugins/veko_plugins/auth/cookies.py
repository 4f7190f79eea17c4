"""Cookies with tokens, and the protection of what is requested with them from other sites' pages.

A browser sends cookies with requests that other sites' pages make. So a request that changes
something and has its token in a cookie needs more: the browser must not say that it comes from
elsewhere (`Sec-Fetch-Site`, `Origin`), and it must repeat the session's CSRF token, in the header
`X-CSRF-Token` or the form's field `csrf_token`. A WebSocket's handshake, which can do neither, must
come from an origin that is this application's. Tokens in the `Authorization` header need nothing:
no browser adds them.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from .types import Connection, Response

if TYPE_CHECKING:
    from .settings import Settings
    from .tokens import Tokens

__all__ = ["ACCESS", "FIELD", "HEADER", "REFRESH", "Cookies", "bearer_of"]

ACCESS: Final = "veko_access"
REFRESH: Final = "veko_refresh"
CSRF: Final = "veko_csrf"
HEADER: Final = "x-csrf-token"
FIELD: Final = "csrf_token"

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SOCKET: Final = "WEBSOCKET"
_FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Cookies:
    """Reads, sets and protects the cookies.

    Args:
        settings: Whether there are any, and how they are set.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # A browser takes a cookie of such a name from this host only, over HTTPS: a neighbouring
        # host cannot put its own in its place.
        self._prefix = "__Host-" if settings.cookie_secure else ""
        self._trusted = frozenset(one.rstrip("/").lower() for one in settings.trusted_origins)

    def name(self, cookie: str) -> str:
        """Return the full name of a cookie."""
        return self._prefix + cookie

    def get(self, request: Connection, cookie: str) -> str | None:
        """Return a token from a cookie; `None` if there is none, or cookies are not accepted."""
        if not self._settings.cookies:
            return None
        return request.cookies.get(self._prefix + cookie)

    def set(self, response: Response, tokens: Tokens) -> None:
        """Set the cookies of a session."""
        lifetimes = {
            ACCESS: (tokens.access_token, tokens.expires_in),
            REFRESH: (tokens.refresh_token, tokens.refresh_expires_in),
            CSRF: (tokens.csrf_token, tokens.refresh_expires_in),
        }
        for cookie, (value, lifetime) in lifetimes.items():
            self._put(response, cookie, value, lifetime)

    def clear(self, response: Response) -> None:
        """Let the browser forget the cookies."""
        for cookie in (ACCESS, REFRESH, CSRF):
            self._put(response, cookie, "", 0)

    def _put(self, response: Response, cookie: str, value: str, lifetime: int) -> None:
        response.set_cookie(
            self._prefix + cookie,
            value,
            max_age=lifetime,
            secure=self._settings.cookie_secure,
            httponly=cookie != CSRF,  # a page's script repeats that one in a header
            samesite=self._settings.cookie_samesite,
        )
        response.headers["cache-control"] = "no-store"

    def comes_from_elsewhere(self, request: Connection) -> bool:
        """Return whether a request that changes something comes from another site's page."""
        if request.method in _SAFE:
            return False
        origins = request.headers.getall("origin")
        if len(origins) > 1:
            return True
        if origins:
            origin = origins[0].lower()
            if origin in self._trusted:
                return False
            if not _is_same(origin, request):
                return True
        elif request.method == _SOCKET:
            return True
        site = request.headers.get("sec-fetch-site", "same-origin").lower()
        return site not in {"same-origin", "none"}

    async def has_csrf_token(self, request: Any, token: str) -> bool:
        """Return whether a request that changes something repeats the session's CSRF token."""
        if request.method in _SAFE or request.method == _SOCKET:
            return True
        given = request.headers.get(HEADER)
        if given is None:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind in _FORMS:
                given = (await request.form()).get(FIELD)
        if not isinstance(given, str):
            return False
        return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def bearer_of(request: Connection) -> str | None:
    """Return the token of the `Authorization` header; empty if it has several, `None` if none."""
    headers = request.headers.getall("authorization")
    if not headers:
        return None
    scheme, _, token = headers[0].partition(" ")
    if len(headers) > 1:
        return ""
    return token.strip() if scheme.lower() == "bearer" else None


def _is_same(origin: str, request: Connection) -> bool:
    """Return whether an origin is that of the host which the request was sent to."""
    try:
        theirs, ours = urlsplit(origin), urlsplit("//" + request.headers.get("host", ""))
        scheme = request.scope.get("scheme", "http")
        if theirs.scheme not in {"http", "https"} or not theirs.hostname:
            return False  # "null", an extension, a file
        # A proxy may have ended TLS, so HTTPS is trusted where HTTP arrives; never the reverse.
        if scheme in {"https", "wss"} and theirs.scheme != "https":
            return False
        port = theirs.port or _PORTS[theirs.scheme]
        return theirs.hostname == ours.hostname and port == (ours.port or _PORTS[theirs.scheme])
    except ValueError:
        return False

"""Access to the management API over HTTP: tokens, roles, and where a request comes from.

A request needs a token (`Authorization: Bearer …`), or the cookie that a login with the token gave.
Before that it is refused unless it comes from this machine (or a token was set in the
configuration), asks for a name that is this machine's (so that no other name can be pointed at it),
and comes from a page of the API itself if it comes from a page.

Promise: tokens are compared in constant time, and are in no answer, log or error.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from .documents import Role
from .errors import AdminError
from .settings import AdminConfig
from .tokens import TOKEN_FILE, made_token

__all__ = ["COOKIE", "Access", "Caller"]

COOKIE: Final = "veko_admin"
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST: Final = re.compile(r"\[([0-9a-f:.]+)\](?::\d{1,5})?|([^:\[\]/@\s]+)(?::\d{1,5})?")
_CHALLENGE: Final = {"www-authenticate": 'Bearer realm="veko"'}


class Caller(msgspec.Struct, frozen=True):
    """The caller of a verb.

    Attributes:
        role: What they may do.
        way: How they came in: `token`, `cookie`, `socket` or `python`.
        address: From where: an address, or the process of the other end of a socket.
    """

    role: Role
    way: str = "python"
    address: str = ""

    def __str__(self) -> str:
        return f"{self.role} by {self.way}{f' from {self.address}' if self.address else ''}"


class Access:
    """Decides about requests over HTTP.

    Args:
        config: The configuration of the core plugin.
        directory: The application's directory.

    Raises:
        OptionError: The token cannot be read or written, or the two tokens are the same.
    """

    def __init__(self, config: AdminConfig, directory: Path) -> None:
        self._explicit = config.token is not None
        token = config.token if config.token is not None else made_token(directory)
        self._tokens: dict[Role, bytes] = {"operate": _digest(token)}
        if config.viewer_token is not None:
            self._tokens["look"] = _digest(config.viewer_token)
        self._hosts = _LOCAL | {one.lower() for one in config.allow_hosts}
        self._origins = frozenset(one.lower().rstrip("/") for one in config.origins)
        self._session = config.session
        every = b"".join(self._tokens.values())
        self._key = hashlib.blake2b(every, key=_digest(token), person=b"veko session").digest()

    def admit(self, method: str, headers: Mapping[str, str], client: str | None) -> Caller:
        """Return the caller of a request.

        Args:
            method: The method of the request.
            headers: Its headers, with names in lower case.
            client: The address that it comes from.

        Raises:
            AdminError: It is refused: 401 without a valid token, 403 for where it comes from.
        """
        same = self.check_origin(method, headers, client)
        role, way = self._role_of(headers), "token"
        if role is None and "authorization" not in headers:
            role, way = self._role_of_cookie(headers), "cookie"
            if role is not None and method not in _SAFE and not same:
                raise AdminError(
                    403,
                    "the request does not say that it comes from the dashboard",
                    remedy="Send the token as `Authorization: Bearer …` instead of the cookie.",
                )
        if role is None:
            raise AdminError(
                401,
                "a valid token is needed",
                remedy=f"Send it as `Authorization: Bearer …`; it is in {TOKEN_FILE}, or what "
                "[plugins.admin] says.",
                headers=_CHALLENGE,
            )
        return Caller(role, way, client or "")

    def check_origin(self, method: str, headers: Mapping[str, str], client: str | None) -> bool:
        """Refuse a request for where it comes from; return whether it says to be of our own page.

        Raises:
            AdminError: It is refused (403).
        """
        del method
        if not self._explicit and not _is_loopback(client):
            raise AdminError(
                403,
                "only clients on this machine are answered with the token that was made",
                remedy="Set `token` in [plugins.admin] to answer others.",
            )
        host = headers.get("host", "").lower()
        found = _HOST.fullmatch(host)
        name = (found[1] or found[2]).rstrip(".") if found is not None else ""
        if name not in self._hosts:
            raise AdminError(
                403,
                "the request asks for a host that is not this one",
                remedy="Add the name to `allow_hosts` in [plugins.admin] if it is.",
            )
        origin = headers.get("origin", "").lower()
        site = headers.get("sec-fetch-site", "").lower()
        if origin in self._origins:
            return True
        own = bool(origin) and urlsplit(origin).netloc == host and "://" in origin
        if (origin and not own) or site not in ("", "none", "same-origin"):
            raise AdminError(
                403,
                "the request comes from another site's page",
                remedy="Add its origin to `origins` in [plugins.admin] if it may.",
            )
        return own or site == "same-origin"

    # -- tokens

    def role_of(self, token: str) -> Role | None:
        """Return the role that a token gives; `None` if it is not valid."""
        given = _digest(token)
        found: Role | None = None
        for role, known in self._tokens.items():  # all are compared, whichever it is
            if hmac.compare_digest(given, known):
                found = role if found is None else found
        return found

    def _role_of(self, headers: Mapping[str, str]) -> Role | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return self.role_of(token.strip()) if scheme.lower() == "bearer" else None

    # -- sessions of the dashboard

    def session(self, role: Role) -> tuple[str, int]:
        """Return the value of a login's cookie, and how long it holds, in seconds."""
        until = f"{role}.{int(time.time() + self._session)}"
        return f"{until}.{self._sign(until)}", int(self._session)

    def _role_of_cookie(self, headers: Mapping[str, str]) -> Role | None:
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE:
                return self._checked(value)
        return None

    def _checked(self, value: str) -> Role | None:
        until, _, signature = value.rpartition(".")
        if not hmac.compare_digest(self._sign(until).encode(), signature.encode()):
            return None
        role, _, ends = until.partition(".")
        if not ends.isdecimal() or int(ends) < time.time():
            return None
        return "operate" if role == "operate" else "look"

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "replace"), "sha256").hexdigest()

    @property
    def key(self) -> bytes:
        """A key for what must be the same in all workers, and guessed by nobody."""
        return hashlib.blake2b(self._key, person=b"veko versions").digest()[:32]


def _digest(token: str) -> bytes:
    return hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=32).digest()


def _is_loopback(client: str | None) -> bool:
    try:
        address = ipaddress.ip_address(client or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback

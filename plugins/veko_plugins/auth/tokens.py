"""Tokens: signed statements (JWT, HS256) about whose session a request belongs to.

An access token goes with each request, a refresh token gets new ones. They say whose session it is
and nothing that may change: roles and the session itself are looked up, so that a change counts at
once. The algorithm is fixed here and never read from a token.

Promise: whatever a client sends as a token is either one that this application signed, for this
use, that has not expired; or `InvalidToken`. It costs 20 us, and a token of any length is refused
before it is decoded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec
from joserfc import jwt

if TYPE_CHECKING:
    from .keys import Keys

__all__ = [
    "MAX_TOKEN", "Claims", "Credentials", "ExpiredToken", "InvalidToken", "Signer", "Tokens", "Use",
]  # fmt: skip

MAX_TOKEN: Final = 2048
"""Characters of a token."""
Use: TypeAlias = Literal["access", "refresh"]
_Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=200)]
_ALGORITHM: Final = "HS256"
_TYPES: Final[dict[Use, str]] = {"access": "at+jwt", "refresh": "rt+jwt"}


class InvalidToken(Exception):
    """A token that this application has not signed for this use."""


class ExpiredToken(InvalidToken):
    """A token that was valid once."""


class Credentials(msgspec.Struct, frozen=True):
    """A name and a password, as a request's body has them; the password is not shown.

    Attributes:
        name: The user's name.
        password: The password.
    """

    name: str
    password: Annotated[
        str, msgspec.Meta(extra_json_schema={"format": "password", "writeOnly": True})
    ]

    def __repr__(self) -> str:
        return f"Credentials({self.name!r})"


class Tokens(msgspec.Struct, frozen=True):
    """What a login or a refresh gives the client; a handler may return it as it is.

    Attributes:
        access_token: Goes with each request: `Authorization: Bearer …`.
        refresh_token: Gets the next tokens, once.
        csrf_token: Goes with each request that changes something, if tokens are in cookies.
        expires_in: Seconds until the access token expires.
        refresh_expires_in: Seconds until the refresh token expires.
        token_type: `Bearer`.
    """

    access_token: str
    refresh_token: str
    csrf_token: str
    expires_in: int
    refresh_expires_in: int
    token_type: str = "Bearer"

    def __repr__(self) -> str:
        return f"<Tokens for {self.expires_in} s>"


class Claims(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """What a token states.

    Attributes:
        sub: The user's id.
        key: The key of the user's name.
        sid: The session's id.
        aud: The application.
        iat: When it was issued, in seconds since the epoch.
        exp: When it expires.
        jti: The id of a refresh token.
    """

    sub: _Text
    key: _Text
    sid: _Text
    aud: _Text
    iat: int
    exp: int
    jti: _Text = ""


class Signer:
    """Signs and reads tokens.

    Args:
        keys: The keys.
        audience: The application.
        skew: Seconds by which clocks may differ.
    """

    def __init__(self, keys: Keys, audience: str, skew: float) -> None:
        self._keys = keys
        self._audience = audience
        self._skew = skew

    def sign(
        self,
        use: Use,
        user: str,
        key: str,
        session: str,
        lifetime: float,
        jti: str = "",
    ) -> str:
        """Return a token.

        Args:
            use: What it is for.
            user: The user's id.
            key: The key of the user's name.
            session: The session's id.
            lifetime: Seconds until it expires.
            jti: The id of a refresh token.
        """
        now = int(time.time())
        kid, signing = self._keys.newest()
        header = {"alg": _ALGORITHM, "kid": kid, "typ": _TYPES[use]}
        claims: dict[str, Any] = {
            "sub": user, "key": key, "sid": session, "aud": self._audience,
            "iat": now, "exp": now + int(lifetime),
        }  # fmt: skip
        if jti:
            claims["jti"] = jti
        return jwt.encode(header, claims, signing, algorithms=[_ALGORITHM])

    def read(self, use: Use, token: str, *, expired: bool = False) -> Claims:
        """Return what a token states.

        Args:
            use: What it must be for.
            token: The token.
            expired: Whether one that has expired is accepted too.

        Raises:
            ExpiredToken: It has expired.
            InvalidToken: It is none of this application's for this use.
        """
        if len(token) > MAX_TOKEN or not token.isascii():
            raise InvalidToken
        try:
            found = jwt.decode(token, self._find, algorithms=[_ALGORITHM])
            claims = msgspec.convert(found.claims, Claims)
        except Exception:
            # Whatever it is, a RecursionError too: the text is the client's, and is not a token.
            raise InvalidToken from None
        if found.header.get("typ") != _TYPES[use] or claims.aud != self._audience:
            raise InvalidToken
        now = time.time()
        if claims.iat - self._skew > now:
            raise InvalidToken
        if not expired and claims.exp + self._skew <= now:
            raise ExpiredToken
        return claims

    def _find(self, token: Any) -> Any:
        key = self._keys.find(token.headers().get("kid"))
        if key is None:
            raise InvalidToken
        return key

"""Cookies: reading those that a client sends, writing those that a response sets (RFC 6265)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal

__all__ = ["SameSite", "parse_cookies", "write_cookie"]

SameSite = Literal["lax", "strict", "none"]

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_VALUE: Final = re.compile(r"[!#-+\--:<-\[\]-~]*", re.ASCII)
_ATTRIBUTE: Final = re.compile(r"[ -:<-~]*", re.ASCII)


def parse_cookies(headers: Iterable[str]) -> dict[str, str]:
    """Return the cookies in the values of `Cookie` headers; of a repeated name the last."""
    found: dict[str, str] = {}
    for header in headers:
        for item in header.split(";"):
            name, equals, value = item.strip().partition("=")
            if equals and name:
                quoted = len(value) > 1 and value[0] == value[-1] == '"'
                found[name] = value[1:-1] if quoted else value
    return found


def write_cookie(
    name: str,
    value: str,
    *,
    max_age: int | None,
    path: str,
    domain: str | None,
    secure: bool,
    httponly: bool,
    samesite: SameSite,
) -> str:
    """Return the value of a `Set-Cookie` header; see `Response.set_cookie`.

    Raises:
        ValueError: A part could begin another cookie, attribute or header, or is not allowed.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid cookie name: use letters, digits, '-' or '_'")
    if not _VALUE.fullmatch(value):
        raise ValueError(
            f"the value of the cookie {name!r} has a character that cookies cannot carry; "
            "encode it, for example with urllib.parse.quote"
        )
    if samesite not in ("lax", "strict", "none"):
        raise ValueError(f"samesite must be 'lax', 'strict' or 'none', got {samesite!r}")
    if samesite == "none" and not secure:
        raise ValueError("samesite='none' needs secure=True: browsers drop the cookie otherwise")
    parts = [f"{name}={value}"]
    if max_age is not None:
        parts.append(f"Max-Age={int(max_age)}")
    for attribute, text in (("Path", path), ("Domain", domain)):
        if text:
            if not _ATTRIBUTE.fullmatch(text):
                raise ValueError(f"{attribute.lower()} has a character that cookies cannot carry")
            parts.append(f"{attribute}={text}")
    if secure:
        parts.append("Secure")
    if httponly:
        parts.append("HttpOnly")
    parts.append(f"SameSite={samesite.capitalize()}")
    return "; ".join(parts)

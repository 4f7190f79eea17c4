"""Stored responses: which ones are stored, for how long, and how they answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from . import control as http
from .exchange import HeadersLike, RawHeaders, Received, ResponseLike, marked
from .rules import Rules

__all__ = [
    "StoredResponse",
    "Variants",
    "answer",
    "complete",
    "for_304",
    "is_held",
    "storable",
]

_MOST: Final = 366 * 86_400.0
# RFC 9111, 3.1: those of one connection are not stored; the others are made for each answer.
_NOT_STORED: Final = frozenset(
    (
        b"age", b"cache-status", b"connection", b"content-length", b"date", b"keep-alive",
        b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
# RFC 9110, 15.4.5
_OF_304: Final = frozenset(
    (b"cache-control", b"content-location", b"etag", b"expires", b"set-cookie", b"vary")
)


class StoredResponse(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """A response in the cache; the value that `cache:set` gets for it.

    Attributes:
        status: The status code.
        headers: The headers.
        body: The body.
        born: When it was made, in seconds since the epoch.
        open: Whether it may answer requests that say who they come from.
    """

    status: int
    headers: RawHeaders
    body: bytes
    born: float
    open: bool = False


class Variants(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """What is under the key of responses with `Vary`.

    Attributes:
        names: The headers that they depend on.
    """

    names: tuple[str, ...]


def storable(response: ResponseLike, rules: Rules, now: float, *, credited: bool) -> float | None:
    """Return for how many seconds a response may be stored; `None` if it may not (RFC 9111, 3).

    Args:
        response: The response.
        rules: What was asked for.
        now: Seconds since the epoch.
        credited: Whether the request says who it comes from.
    """
    headers = response.headers
    if response.stream is not None or response.body is None:
        return None
    if response.status not in rules.statuses or response.status in {206, 304}:
        return None
    if "set-cookie" in headers and not rules.cookies:
        return None
    if "*" in http.names(headers.getall("vary")) or "content-range" in headers:
        return None
    control = http.directives(headers.getall("cache-control"))
    if credited and not http.allows_authorised(control):
        return None
    expires, date = headers.getall("expires"), headers.get("date")
    ttl = http.lifetime(control, expires, date, now, rules.ttl)
    if ttl is None:
        return None
    ttl -= http.seconds(headers.get("age")) or 0
    return min(ttl, _MOST) if ttl > 0 else None


def complete(response: ResponseLike, rules: Rules, now: float) -> StoredResponse:
    """Give a response the headers that caches need, and return what is stored of it."""
    headers, body = response.headers, response.body or b""
    if response.status == 200 and "etag" not in headers:
        headers["etag"] = http.etag_of(body)
    if rules.max_age is not None and "cache-control" not in headers:
        headers["cache-control"] = f"max-age={rules.max_age}"
    vary = headers.getall("vary")
    if missing := [name for name in rules.vary if name not in http.names(vary)]:
        headers["vary"] = ", ".join([*vary, *missing])
    control = http.directives(headers.getall("cache-control"))
    return StoredResponse(
        response.status,
        [pair for pair in headers.raw if pair[0] not in _NOT_STORED],
        body,
        now - (http.seconds(headers.get("age")) or 0),
        rules.public or http.allows_authorised(control),
    )


def answer(
    stored: StoredResponse, received: Received, now: float, until: float, *, held: bool
) -> ResponseLike:
    """Return a stored response, or 304 if the client has it.

    Args:
        stored: The stored response.
        received: Makes a response.
        now: Seconds since the epoch.
        until: When it expires.
        held: Whether the client has it.
    """
    raw, body, status = [*stored.headers], stored.body, stored.status
    if held:
        status, raw, body = 304, for_304(raw), b""
    raw.append((b"age", b"%d" % max(0, now - stored.born)))
    return marked(received(status, raw, body), f"hit; ttl={max(0, int(until - now))}")


def is_held(stored: StoredResponse, asked: HeadersLike) -> bool:
    """Return whether a client has a response already, as its request says."""
    none_match, since = asked.getall("if-none-match"), asked.get("if-modified-since")
    if stored.status != 200 or (not none_match and since is None):
        return False
    own: Mapping[bytes, bytes] = dict(stored.headers)
    etag, modified = own.get(b"etag"), own.get(b"last-modified")
    return http.is_current(
        None if etag is None else etag.decode("latin-1"),
        None if modified is None else modified.decode("latin-1"),
        none_match,
        since,
    )


def for_304(raw: RawHeaders) -> RawHeaders:
    """Return the headers that a 304 has."""
    return [pair for pair in raw if pair[0] in _OF_304]

"""Rules: what a middleware was asked for, and the keys and tags of the requests it sees."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import msgspec

from . import control as http
from .entries import check_tags, path_tag
from .exchange import HeadersLike, RequestLike

__all__ = ["CREDENTIALS", "Rules", "is_apart", "variant_of"]

_MOST_SEGMENTS: Final = 16
CREDENTIALS: Final = (
    "authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token",
)  # fmt: skip
"""Headers that say who a request comes from."""


class Rules(msgspec.Struct, frozen=True):
    """What a middleware was asked for.

    Attributes:
        ttl: Seconds that a response lives which does not say it itself.
        tags: Returns the tags of the response to a request.
        vary: Headers, in small letters, that each have responses of their own.
        key: Returns what a request asks for; `None` for what is not answered from the cache.
        statuses: The statuses of responses that are stored.
        public: Whether all clients get the same response.
        cookies: Whether responses that set cookies are stored.
        max_age: For how many seconds clients may keep a response that does not say it itself.
        obey: Whether clients decide by `Cache-Control` what they get.
    """

    ttl: float
    tags: Callable[[Any], Collection[str]]
    vary: tuple[str, ...]
    key: Callable[[Any], str | None] | None
    statuses: frozenset[int]
    public: bool
    cookies: bool
    max_age: int | None
    obey: bool

    def is_credited(self, headers: HeadersLike) -> bool:
        """Return whether a request says who it comes from, and the response may depend on it."""
        return not self.public and any(
            name in headers for name in CREDENTIALS if name not in self.vary
        )

    def asked(self, headers: HeadersLike) -> dict[str, str]:
        """Return the `Cache-Control` of a request, as far as it is obeyed."""
        if not self.obey:
            return {}
        values = headers.getall("cache-control")
        if not values and "no-cache" in (headers.get("pragma") or "").lower():
            return {"no-cache": ""}
        return http.directives(values) if values else {}

    def key_of(self, request: RequestLike) -> str | None:
        """Return the key of a request; `None` if it is not answered from the cache."""
        scope, headers = request.scope, request.headers
        path = scope["path"]
        if path.count("/") > _MOST_SEGMENTS:
            return None
        if self.key is None:
            query = scope.get("query_string", b"").decode("latin-1")
            target = f"{scope.get('scheme')}\0{headers.get('host')}\0{path}\0{query}"
        else:
            own = self.key(request)
            if own is None:
                return None
            target = f"\0{own}"
        digest = blake2b(target.encode("utf-8", "surrogatepass"), digest_size=16)
        for name in self.vary:
            digest.update(_value(headers, name))
        shown = path.encode("ascii", "backslashreplace").decode()
        return f"GET {shown[:200]} {digest.hexdigest()}"

    def varies(self, values: Sequence[str]) -> tuple[str, ...]:
        """Return the headers in `Vary` that are not in the key anyway."""
        return tuple(name for name in http.names(values) if name not in self.vary)

    def tags_of(self, request: RequestLike) -> list[str]:
        """Return the tags of a response: the given ones, its path, and the paths above it."""
        return [*check_tags(self.tags(request)), *_tags_of(request.path)]


@lru_cache(4096)
def _tags_of(path: str) -> tuple[str, ...]:
    paths, at = ["/"], 0
    while (at := path.find("/", at + 1)) > 0:
        paths.append(path[:at])
    if (whole := path.rstrip("/")) and whole != paths[-1]:
        paths.append(whole)
    return tuple(map(path_tag, paths))


def is_apart(headers: HeadersLike) -> bool:
    """Return whether the answer to a request is for that request alone.

    It is a part of the response (`Range`), or may depend on a body, which no key has: a client
    could have a page stored that others get who sent none.
    """
    body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return body or "range" in headers


def variant_of(headers: HeadersLike, key: str, names: Sequence[str]) -> str:
    """Return the key of the variant that a request wants of a response with this `Vary`."""
    if not names:
        return key
    digest = blake2b(digest_size=16)
    for name in names:
        digest.update(_value(headers, name))
    return f"{key} {digest.hexdigest()}"


def _value(headers: HeadersLike, name: str) -> bytes:
    """Return the value of a header for a key: one form for what means the same."""
    value = ",".join(" ".join(one.split()) for one in headers.getall(name))
    present = b"\1" if name in headers else b"\0"
    return present + name.encode() + b"\0" + value.encode("utf-8", "surrogatepass") + b"\0"

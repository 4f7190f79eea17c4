"""Responses: a middleware that answers from the cache (RFC 9111), as a proxy in front would.

A stored response answers any client, so in doubt there is none: not for a request that says who it
comes from (`Authorization`, cookies), not if the response sets a cookie, is `private`, or streamed.

Of many requests for one page that is missing, one runs the handler. The others wait for it and get
what is stored; if nothing is, they run the handler themselves, at once and for some seconds without
waiting for each other: a page that is never stored must not be made one at a time.

Cost: a hit takes one look-up, see `engine`, and the decoding of the response.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from . import control as http
from .engine import Engine, Found, Scope
from .entries import Draft, encode_value
from .errors import CacheError
from .exchange import CallNext, Received, RequestLike, ResponseLike, marked
from .rules import CREDENTIALS, Rules, is_apart, variant_of
from .stored import (
    StoredResponse,
    Variants,
    answer,
    complete,
    for_304,
    is_held,
    storable,
)

__all__ = ["Responses"]

_SPECIAL: Final = frozenset(
    (
        b"cache-control",
        b"content-length",
        b"if-modified-since",
        b"if-none-match",
        b"pragma",
        b"range",
        b"transfer-encoding",
    )
) | frozenset(name.encode() for name in CREDENTIALS)
"""Headers that decide how a request is answered."""
_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
_PASS_SECONDS: Final = 5.0
_MOST_PASSING: Final = 10_000

_Stored: TypeAlias = StoredResponse | Variants


class _Kept(msgspec.Struct, frozen=True):
    """A response that is in the cache.

    Attributes:
        key: Its key, with that of its variant.
        response: The response.
        until: When it expires.
    """

    key: str
    response: StoredResponse
    until: float


class Responses:
    """The middleware that `Cache.cached` returns.

    Args:
        engine: The engine.
        scope: The namespace that responses are stored in.
        rules: What was asked for.
        received: Makes a response.
    """

    def __init__(self, engine: Engine, scope: Scope, rules: Rules, received: Received) -> None:
        self._engine = engine
        self._scope = scope
        self._rules = rules
        self._received = received
        self._passing: OrderedDict[str, float] = OrderedDict()

    async def handle(self, request: RequestLike, call_next: CallNext) -> ResponseLike:
        """Answer a request."""
        method = request.scope.get("method")
        if method not in {"GET", "HEAD"}:
            response = await call_next(request)
            if method is not None and method not in _SAFE and 200 <= response.status < 400:
                # RFC 9111, 4.4: what it has changed is not answered from the cache any more.
                await self._engine.clear(self._scope, (), request.path.rstrip("/") or "/")
            return response
        headers, rules = request.headers, self._rules
        asked: dict[str, str] = {}
        special = credited = False
        if not _SPECIAL.isdisjoint([name for name, _ in headers.raw]):  # few requests have one
            special, credited, asked = True, rules.is_credited(headers), rules.asked(headers)
        key = rules.key_of(request)
        if key is None or (special and (is_apart(headers) or "no-store" in asked)):
            return marked(await call_next(request), "fwd=bypass")
        tags = rules.tags_of(request)
        found, kept = await self._find(request, key, tags)
        if kept is not None and (kept.response.open or not credited):
            now = self._engine.clock()
            if http.is_stored_for(asked, now - kept.response.born, kept.until - now):
                self._scope.counts.hits += 1
                return self._answer(request, kept, special=special)
        if "only-if-cached" in asked:
            return marked(self._received(504, [], b""), "fwd=miss")
        self._scope.counts.misses += 1
        if method == "HEAD":
            return marked(await call_next(request), "fwd=method")
        if credited or kept is not None or "no-cache" in asked or self._passes(key):
            return await self._make(request, call_next, key, tags, found, credited=credited)
        return await self._together(request, call_next, key, tags)

    async def _together(
        self, request: RequestLike, call_next: CallNext, key: str, tags: Sequence[str]
    ) -> ResponseLike:
        """Run the handler for all that want this page now, or wait for the one who does."""
        made: list[ResponseLike] = []
        led = False

        async def lead() -> _Kept | None:
            nonlocal led
            led = True
            found, kept = await self._find(request, key, tags)
            if kept is None:
                async with self._engine.turn(self._scope.key(key)) as waited:
                    if waited:
                        found, kept = await self._find(request, key, tags)
                    if kept is None:
                        known = await self._engine.prepare(self._scope, tags, found.versions)
                        response = await call_next(request)
                        kept = await self._keep(request, response, key, tags, known, credited=False)
                        made.append(self._finished(request, response, kept))
            return kept

        kept: _Kept | None
        try:
            kept = await self._engine.flights.run(f"h:{self._scope.key(key)}", lead)
        except Exception:
            if led:
                raise
            kept = None  # the handler failed for another request; for this one it runs itself
        if made:
            return made[0]
        if kept is not None:
            vary = [v.decode("latin-1") for n, v in kept.response.headers if n == b"vary"]
            if kept.key == variant_of(request.headers, key, self._rules.varies(vary)):
                return self._answer(request, kept)
        return marked(await call_next(request), "fwd=miss")

    async def _make(
        self,
        request: RequestLike,
        call_next: CallNext,
        key: str,
        tags: Sequence[str],
        found: Found,
        *,
        credited: bool,
    ) -> ResponseLike:
        """Run the handler for this request alone, and store the response if that is allowed."""
        known = await self._engine.prepare(self._scope, tags, found.versions)
        response = await call_next(request)
        kept = await self._keep(request, response, key, tags, known, credited=credited)
        return self._finished(request, response, kept)

    async def _find(
        self, request: RequestLike, key: str, tags: Sequence[str]
    ) -> tuple[Found, _Kept | None]:
        """Look a response up: under its key, or under that of its variant."""
        found = await self._engine.look(self._scope, key, tags, _Stored)
        if isinstance(found.value, Variants):
            key = variant_of(request.headers, key, found.value.names)
            found = await self._engine.look(self._scope, key, tags, _Stored)
        stored = found.value
        if not isinstance(stored, StoredResponse):
            return found, None
        return found, _Kept(key, stored, found.until)

    async def _keep(
        self,
        request: RequestLike,
        response: ResponseLike,
        key: str,
        tags: Sequence[str],
        known: dict[str, bytes],
        *,
        credited: bool,
    ) -> _Kept | None:
        """Store a response if that is allowed."""
        now, kept = self._engine.clock(), None
        ttl = storable(response, self._rules, now, credited=credited)
        if ttl is not None and len(response.body or b"") <= self._engine.max_value:
            stored = complete(response, self._rules, now)
            names = self._rules.varies(response.headers.getall("vary"))
            variant = variant_of(request.headers, key, names)
            try:
                draft = None
                if not names or await self._write(key, Variants(names), ttl, tags, known):
                    draft = await self._write(variant, stored, ttl, tags, known)
                if draft is not None and isinstance(draft.value, StoredResponse):
                    kept = _Kept(variant, draft.value, now + draft.ttl)
            except CacheError as error:  # it is too large with its headers, or a hook spoilt it
                self._engine.warn(str(error))
        self._pass(key, kept is None)
        return kept

    async def _write(
        self, key: str, value: _Stored, ttl: float, tags: Sequence[str], known: dict[str, bytes]
    ) -> Draft | None:
        """Store a value; returns what hooks have left of it, or `None` if it is not stored."""
        engine = self._engine
        draft = Draft(value, ttl, tuple(tags))
        data = encode_value(self._scope.key(key), value, engine.max_value)
        if await engine.write(self._scope, key, draft, data, known) is not None:
            return draft
        # While the server is gone, those that wait here get the response all the same.
        return draft if getattr(engine.store, "down", False) else None

    def _passes(self, key: str) -> bool:
        return self._passing.get(key, 0.0) > time.monotonic()

    def _pass(self, key: str, passes: bool) -> None:
        self._passing.pop(key, None)
        if passes:
            self._passing[key] = time.monotonic() + _PASS_SECONDS
            if len(self._passing) > _MOST_PASSING:
                self._passing.popitem(last=False)

    def _finished(
        self, request: RequestLike, response: ResponseLike, kept: _Kept | None
    ) -> ResponseLike:
        """Return a response that was just made, or 304 if the client has it."""
        if kept is None:
            return marked(response, "fwd=miss")
        if is_held(kept.response, request.headers):
            response = self._received(304, for_304(response.headers.raw), b"")
        return marked(response, "fwd=miss; stored")

    def _answer(self, request: RequestLike, kept: _Kept, *, special: bool = True) -> ResponseLike:
        stored, now = kept.response, self._engine.clock()
        held = special and is_held(stored, request.headers)
        return answer(stored, self._received, now, kept.until, held=held)

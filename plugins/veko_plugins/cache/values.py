"""Values: a middleware that keeps what a handler returned, before it is encoded.

A hit runs everything around the handler, and not the handler: the adapter encodes the value for
this request, with its headers, and middlewares inside see a response like any other. It costs more
than a stored response, and there is no `ETag`.

The middleware stands around the route and the value passes inside, so `route:create` puts a small
function around the handler; the two meet in a context variable, which threads have too.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from .engine import Engine, Found, Scope
from .entries import Draft, decode_value, encode_value
from .errors import CacheError
from .exchange import CallNext, RequestLike, ResponseLike, marked
from .rules import Rules, is_apart

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Values", "around_handler", "refuse_for_all"]


class _Slot:
    """What the middleware and the handler of one request have in common."""

    __slots__ = ("filled", "given", "value")

    def __init__(self, found: Found | None) -> None:
        self.given = found is not None
        self.filled = False
        self.value: object = None if found is None else found.value


_SLOT: Final[ContextVar[_Slot | None]] = ContextVar("veko_cache_value", default=None)


class RouteLike(Protocol):
    """`veko_plugins.http.Route`, as far as it is used here."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def handler(self) -> Callable[..., Any]: ...
    @property
    def middlewares(self) -> tuple[Callable[..., Any], ...]: ...


_R = TypeVar("_R", bound=RouteLike)


class Values:
    """The middleware that `Cache.cached(encoded=False)` returns.

    Args:
        engine: The engine.
        scope: The namespace that values are stored in.
        rules: What was asked for.
    """

    def __init__(self, engine: Engine, scope: Scope, rules: Rules) -> None:
        self._engine = engine
        self._scope = scope
        self._rules = rules
        # Kept, so that a route that is accepted again is the same route as before.
        self._wrapped: dict[Callable[..., Any], Callable[..., Any]] = {}

    async def handle(self, request: RequestLike, call_next: CallNext) -> ResponseLike:
        """Answer a request."""
        rules, headers = self._rules, request.headers
        asked, key = rules.asked(headers), rules.key_of(request)
        if (
            request.scope.get("method") != "GET"
            or key is None
            or "no-store" in asked
            or is_apart(headers)
            or rules.is_credited(headers)
        ):
            return marked(await call_next(request), "fwd=bypass")
        key, tags = f"value {key}", rules.tags_of(request)
        made: list[ResponseLike] = []
        if "no-cache" in asked:
            await self._make(request, call_next, key, tags, made)
            return made[0]
        led = False

        async def lead() -> Found | None:
            nonlocal led
            led = True
            found = await self._engine.look(self._scope, key, tags, Any)
            if found.data is not None:
                return found
            async with self._engine.turn(self._scope.key(key)) as waited:
                if waited:
                    found = await self._engine.look(self._scope, key, tags, Any)
                if found.data is not None:
                    return found
                self._scope.counts.misses += 1
                return await self._make(request, call_next, key, tags, made)

        found: Found | None
        try:
            found = await self._engine.flights.run(f"h:{self._scope.key(key)}", lead)
        except Exception:
            if led:
                raise
            found = None  # the handler failed for another request; for this one it runs itself
        if made:
            return made[0]
        if found is None:
            return marked(await call_next(request), "fwd=miss")
        self._scope.counts.hits += 1
        own = found if led else Found(found.data, decode_value(found.data or b"", Any))
        return marked(await self._call(request, call_next, _Slot(own)), "hit")

    async def _make(
        self,
        request: RequestLike,
        call_next: CallNext,
        key: str,
        tags: Sequence[str],
        made: list[ResponseLike],
    ) -> Found | None:
        """Run the handler, and store what it returned."""
        engine, scope, rules = self._engine, self._scope, self._rules
        known = await engine.prepare(scope, tags, await engine.versions(scope.versions(tags)))
        slot = _Slot(None)
        response = await self._call(request, call_next, slot)
        stored: bytes | None = None
        cookies = "set-cookie" in response.headers and not rules.cookies
        if slot.filled and response.status in rules.statuses and not cookies:
            try:
                data = encode_value(scope.key(key), slot.value, engine.max_value)
                draft = Draft(slot.value, rules.ttl, tuple(tags))
                stored = await engine.write(scope, key, draft, data, known)
            except CacheError as error:
                engine.warn(str(error))
        made.append(marked(response, "fwd=miss" if stored is None else "fwd=miss; stored"))
        return None if stored is None else Found(stored, decode_value(stored, Any))

    @staticmethod
    async def _call(request: RequestLike, call_next: CallNext, slot: _Slot) -> ResponseLike:
        token = _SLOT.set(slot)
        try:
            return await call_next(request)
        finally:
            _SLOT.reset(token)

    def around(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Return a handler that returns the value in the slot, or leaves its own there."""
        known = self._wrapped.get(handler)
        if known is None:
            known = self._wrapped[handler] = _wrapped(handler)
        return known


def _wrapped(handler: Callable[..., Any]) -> Callable[..., Any]:
    def keep(value: object) -> object:
        slot = _SLOT.get()
        if slot is not None and not slot.given:
            slot.filled, slot.value = True, value
        return value

    if inspect.iscoroutinefunction(inspect.unwrap(handler)):

        @functools.wraps(handler)
        async def later(*args: Any, **named: Any) -> Any:
            slot = _SLOT.get()
            if slot is not None and slot.given:
                return slot.value
            return keep(await handler(*args, **named))

        return later

    @functools.wraps(handler)
    def at_once(*args: Any, **named: Any) -> Any:
        slot = _SLOT.get()
        if slot is not None and slot.given:
            return slot.value
        return keep(handler(*args, **named))

    return at_once


def _of(middlewares: Iterable[Callable[..., Any]]) -> Iterable[Values]:
    owners = (getattr(one, "__self__", None) for one in middlewares)
    return [owner for owner in owners if isinstance(owner, Values)]


def around_handler(route: _R) -> _R | None:
    """Put a function around the handler of a route that has such a middleware; a hook.

    Raises:
        CacheError: The handler is not a function.
    """
    handler: Callable[..., Any] = route.handler
    found = _of(route.middlewares)
    if not found:
        return None
    if not inspect.isroutine(handler):
        raise CacheError(
            f"cached(encoded=False) needs a function as the handler of {route.method} {route.path}",
            remedy="Use cached(…) without it.",
        )
    for values in found:
        handler = values.around(handler)
    made: Any = route
    changed: _R = msgspec.structs.replace(made, handler=handler)
    return changed


def refuse_for_all(middleware: object) -> None:
    """Refuse such a middleware for all routes; a hook.

    Raises:
        CacheError: It is one.
    """
    if callable(middleware) and _of([middleware]):
        raise CacheError(
            "cached(encoded=False) is for single routes",
            remedy="Give it to add_route, or leave encoded=False out.",
        )

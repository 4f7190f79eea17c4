"""Credits: which plugin put which middleware on a route, so that its failures count against that.

A hook on `route:load` or `route:create` may put middlewares on the routes of other plugins. Each
such hook is wrapped, and what it added is noted while the routes are accepted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from .events import ROUTE_CREATE, ROUTE_LOAD
from .route import Route

if TYPE_CHECKING:
    from veko import Subscription

__all__ = ["credited", "credited_to", "crediting"]

_OWNERS: Final[ContextVar[dict[int, Any] | None]] = ContextVar("veko_credits", default=None)
"""The owner of a middleware that a hook has added, by the id of the middleware."""


@contextmanager
def crediting() -> Iterator[None]:
    """Note the owners of middlewares that hooks add in this block."""
    token = _OWNERS.set({})
    try:
        yield
    finally:
        _OWNERS.reset(token)


def credited_to(middleware: object) -> Any:
    """Return the owner of the hook that has added a middleware; `None` if none has."""
    return (_OWNERS.get() or {}).get(id(middleware))


def credited(
    event: str, subscription: Subscription, call: Callable[..., Any]
) -> Callable[..., Any]:
    """Wrap a hook on routes, so that what it adds is noted; an interceptor of the bus."""
    owner = subscription.owner
    if event not in (ROUTE_LOAD.name, ROUTE_CREATE.name) or not hasattr(owner, "name"):
        return call

    def note(given: tuple[Any, ...], before: set[int], answer: Any) -> None:
        owners = _OWNERS.get()
        if owners is not None:
            after = _middlewares((answer,)) | _middlewares(given)
            owners.update(dict.fromkeys(after - before, owner))

    async def later(*given: Any) -> Any:
        before = _middlewares(given)
        answer = await call(*given)
        note(given, before, answer)
        return answer

    def at_once(*given: Any) -> Any:
        before = _middlewares(given)
        answer = call(*given)
        note(given, before, answer)
        return answer

    same = call is subscription.handler
    waits = subscription.is_async if same else inspect.iscoroutinefunction(call)
    return later if waits else at_once


def _middlewares(values: tuple[Any, ...]) -> set[int]:
    """Return the ids of the middlewares of routes, and of those in lists of routes."""
    routes = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return {id(fn) for route in routes if isinstance(route, Route) for fn in route.middlewares}

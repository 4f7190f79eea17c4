"""Hooks that the host calls: the arguments as real objects, and the answer with what has changed.

A hook answers `[value, changes, stopped]`: what it returned, what it changed in its arguments (one
for each, or `None`), and whether it raised `Stop`. A request or a response is a copy here, so what
a hook does to it in place is sent back; everything else crosses by value.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final

import msgspec

from veko import LogRecord, Origin, Stop, Subscription
from veko.extend import Entry

from ...http import Request, Response, Route, WebSocket, as_middleware
from .calls import Called, Calls, Crossing, name_of
from .failures import contained, with_state
from .kinds import Marked
from .requests import Seen, request_value, response_value

if TYPE_CHECKING:
    from veko import Context

__all__ = ["hook_call"]

_DATA: Final = {
    frozenset(field.name for field in msgspec.structs.fields(type_)): type_
    for type_ in (LogRecord, Origin)
}
"""Classes whose objects cross as plain data, by the names of their fields."""


_COPIES: Final = (Request, Response, WebSocket)
"""Classes whose objects are copies of the host's: what changes in them is sent back."""


def hook_call(calls: Calls, entry: Entry) -> Called:
    """Return the function that the host calls for a hook.

    Args:
        calls: The other functions that the host calls.
        entry: The hook's entry in the worker's registry.
    """
    subscription: Subscription = entry.value
    handler, arity = subscription.handler, subscription.arity
    back = functools.partial(_crossing, calls, entry)

    async def call(*crossed: Any) -> Crossing:
        known: dict[int, Called] = {}
        args = [_argument(one, known) for one in crossed]
        seen = [Seen(one) if isinstance(one, _COPIES) else None for one in args]
        for one in args:
            if isinstance(one, Request):
                calls.exchange(one, None)
        stopped = False
        try:
            value = handler(*(args if arity is None else args[:arity]))
            if inspect.isawaitable(value) and subscription.is_async:
                value = await value
        except Stop as stop:
            value, stopped = stop.value, True
        except Exception as error:
            for one in args:
                if isinstance(one, Request):
                    with_state(error, one.state)
            raise
        if any(value is one for one in args):
            value = None  # it stays the same object; what is new in it is among the changes
        changes = [None if one is None else _changed(one) for one in seen]
        return back(value, known), changes if any(changes) else None, stopped

    call.__qualname__ = name_of(handler)
    return contained(call)


def _argument(crossed: Any, known: dict[int, Called]) -> object:
    """Return an argument as the plugin's code gets it.

    Args:
        crossed: As it has arrived.
        known: Takes the functions that the host calls for what is the plugin's own in it.
    """
    if isinstance(crossed, Route):
        middlewares = tuple(_own(one, known) for one in crossed.middlewares)
        handler = _own(crossed.handler, known)
        return msgspec.structs.replace(crossed, handler=handler, middlewares=middlewares)
    if not isinstance(crossed, dict):
        return crossed
    type_ = _DATA.get(frozenset(crossed))
    if type_ is LogRecord:
        return msgspec.convert(crossed, LogRecord, strict=False)
    return crossed if type_ is None else type_(**crossed)


def _own(function: Any, known: dict[int, Called]) -> Any:
    own = getattr(function, "own", function)
    known[id(own)] = function
    return own


def _changed(one: Seen) -> Marked | None:
    found = one.changes()
    kinds = {Request: "request", Response: "response", WebSocket: "socket"}
    kind = next(kind for type_, kind in kinds.items() if isinstance(one.value, type_))
    return None if found is None else Marked(kind, found)


def _crossing(calls: Calls, entry: Entry, value: object, known: dict[int, Called]) -> Crossing:
    """Return what a hook answered with, as it crosses the border."""
    if isinstance(value, Request):
        return Marked("request", request_value(value))
    if isinstance(value, Response):
        return Marked("response", response_value(value))
    if isinstance(value, Route):
        return Marked("route", _route_value(calls, entry, value, known))
    if isinstance(value, WebSocket):
        return None
    if isinstance(value, list | tuple):
        return [_crossing(calls, entry, one, known) for one in value]
    return value


def _route_value(
    calls: Calls, entry: Entry, route: Route, known: dict[int, Called]
) -> dict[str, Any]:
    context: Context = entry.owner.context

    def around(fn: Any) -> Called:
        made = known.get(id(fn))
        return made or calls.middleware(as_middleware(fn, context.name), entry.owner)

    handler = known.get(id(route.handler)) or calls.compiled(route, context)
    return {
        "method": route.method,
        "path": route.path,
        "plugin": route.plugin,
        "sync_to_thread": route.sync_to_thread,
        "handler": handler,
        "middlewares": [around(fn) for fn in route.middlewares],
    }

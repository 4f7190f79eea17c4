"""The core plugin `routes`: which plugin has which route, and how routes and middleware change.

The registry keeps every plugin's raw routes as they were registered. The live ones are made from
them by the hooks on `route:load` and `route:create`, compiled by the adapter, and put into the next
routing table, all in the transaction that registers them. When such a hook itself is added or
removed, the raw routes pass the hooks again in that same transaction: no route keeps the middleware
of an unloaded plugin, and none is unguarded for a moment.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from veko import Context, Handle, Plugin
from veko.errors import ConflictError, RefusedError, RouteError, VekoError
from veko.extend import Draft, Entry, Kind

from .batches import Batches
from .credits import credited, credited_to, crediting
from .current import CurrentASGI
from .dispatch import Dispatcher
from .events import (
    EVENTS,
    MIDDLEWARE_ADD,
    MIDDLEWARE_REMOVE,
    ROUTE_CREATE,
    ROUTE_DELETE,
    ROUTE_LOAD,
    ROUTE_UPDATE,
)
from .exchange import Target, run_route, run_target
from .middleware import Middleware, as_middleware, compose
from .port import Adapter, Endpoint, Starting, find_adapter
from .required import Required
from .route import SOCKET, Route
from .service import HTTP
from .sockets.events import EVENTS as SOCKET_EVENTS
from .sockets.open_sockets import OpenSockets, SocketTarget
from .table import HANDSHAKE, Table, Taken, parse_path
from .threads import Threads
from .verbs import add_middleware, add_route, add_websocket

__all__ = ["Routes"]

_BATCHES: Final = "route:batches"
_MADE: Final = "middleware:made"
_CHUNK: Final = 256
"""Routes that are compiled, or put into the table, between two looks at the clock."""


class Routes(Plugin):
    """The core plugin `routes`.

    Args:
        adapter: The HTTP adapter, or the name under which it is registered.
        dev_mode: Whether problem responses show errors and tracebacks.
        threads: How many `def` route handlers run at once.
        required: The plugins without which every request is refused, beside those whose manifests
            say so.

    Raises:
        NotFoundError: No adapter has that name.
        OptionError: The adapter needs a distribution that is not installed.
    """

    name = "routes"
    version = "2.0.0"
    description = "The routing table, middleware, and the HTTP port that adapters implement."
    core = True

    def __init__(
        self,
        adapter: Adapter | str = "litestar",
        *,
        dev_mode: bool = False,
        threads: int = 40,
        required: Collection[str] = (),
    ) -> None:
        self._threads = Threads(threads)
        self._adapter = find_adapter(adapter) if isinstance(adapter, str) else adapter
        self._dev_mode = dev_mode
        self._required = required
        self._numbers = itertools.count(1)
        self._sockets: WeakKeyDictionary[Context, OpenSockets] = WeakKeyDictionary()

    def load(self, context: Context) -> None:
        """Declare the events, add the kinds and the verbs, and provide the service `http`."""
        for event in (*EVENTS, *SOCKET_EVENTS):
            context.declare(event)
        retested = (ROUTE_LOAD.name, ROUTE_CREATE.name)
        context.add_kind(Kind("route", False, self._accept_routes, retested, pinned=False))
        context.add_kind(Kind("middleware", accept=_accept_middleware))
        context.intercept(credited)
        context.attach("add_route", add_route)
        context.attach("add_routes", self._add_routes)
        context.attach("add_websocket", add_websocket)
        context.attach("add_middleware", add_middleware)
        asgi = Dispatcher(context.kernel, dev_mode=self._dev_mode)
        required = Required(self._required)
        required.load(context)
        current = CurrentASGI(context.kernel)
        context.provide("http", HTTP(context.kernel, asgi, self._adapter, current, required))

    def _add_routes(self, context: Context) -> Callable[..., list[Handle]]:
        """Return `context.add_routes(*handlers, path="/")`, for the framework's own handlers."""

        def add_routes(*handlers: object, path: str = "/") -> list[Handle]:
            parse_path(path)
            found = (
                route
                for handler in handlers
                for route in self._adapter.expand(context.name, path, handler)
            )
            # The framework decides where its own handlers run.
            own = [_replace(route, sync_to_thread=False) for route in found]
            return [context.register("route", (r.method, r.path), r) for r in own]

        return add_routes

    async def _accept_routes(self, draft: Draft) -> None:
        with crediting():
            await self._accept(draft)

    async def _accept(self, draft: Draft) -> None:
        owned: dict[Any, Batches] = dict(draft.before.view(_BATCHES) or {})
        gone, added = _by_owner(draft.removed), _by_owner(draft.added)
        again = draft.hooks_changed(ROUTE_LOAD.name, ROUTE_CREATE.name)
        dropped: list[Target] = []
        made: list[Target] = []
        coming: dict[Any, list[Route]] = {}
        for owner in list(owned) if again else [one for one in gone if one in owned]:
            batches = owned[owner] = owned[owner].copy()
            left, changed = batches.remove(gone.get(owner, ()))
            dropped += left
            for number, entries in batches.entries(None if again else changed).items():
                before = batches.targets(number, entries)
                routes = await self._hooked(draft, entries)
                if number not in changed and routes == [target.route for target in before]:
                    continue
                after = await self._compile(draft, owner.context, routes)
                batches.put(number, entries, after)
                dropped += before
                made += after
            if not batches.rows:
                del owned[owner]
        for owner, entries in added.items():
            batches = owned[owner] = owned[owner].copy() if owner in owned else Batches()
            routes = await self._hooked(draft, entries)
            after = await self._compile(draft, owner.context, routes)
            batches.put(next(self._numbers), entries, after)
            made += after
            coming[owner] = [target.route for target in after]
        draft.set_view("route", await _changed(draft, dropped, made))
        if isinstance(self._adapter, Starting):
            for owner, routes in coming.items():
                await self._adapter.start(owner.context, routes)
        draft.set_view(_BATCHES, owned)
        _post_changes(draft, dropped, made)

    async def _hooked(self, draft: Draft, entries: Sequence[Entry]) -> list[Route]:
        """Return the routes that the hooks make of raw ones that were registered together."""
        raw: list[Route] = [entry.value for entry in entries]
        if not raw:
            return []
        plugin = raw[0].plugin
        loaded = await _emit(draft, ROUTE_LOAD.name, list(raw), "its routes", plugin)
        routes: list[Route] = []
        for route in loaded:
            if not isinstance(route, Route):
                raise RouteError(
                    f"a hook on route:load returned {route!r} among the routes",
                    plugin=plugin,
                    remedy="Return a list of `Route`.",
                    event=ROUTE_LOAD.name,
                )
            what = f"the route {route.method} {route.path}"
            made = await _emit(draft, ROUTE_CREATE.name, route, what, plugin)
            # A hook cannot give a route to another plugin, and methods are matched in capitals.
            method = made.method.upper()
            if (made.plugin, made.method) != (plugin, method):
                made = _replace(made, plugin=plugin, method=method)
            routes.append(made)
            if draft.turns.due:
                await draft.turns.pause()
        return routes

    async def _compile(
        self, draft: Draft, context: Context, routes: Sequence[Route]
    ) -> list[Target]:
        for route in routes:
            parse_path(route.path)
        endpoints: dict[int, Endpoint] = {}
        for chunk in _chunks_to_compile(routes):
            compiled = self._adapter.compile(
                context, [self._threads.made(routes[index]) for index in chunk]
            )
            endpoints |= zip(chunk, compiled, strict=True)
            if draft.turns.due:
                await draft.turns.pause()
        return [
            self._target(context, Target(route, endpoints[index], _around(route)))
            for index, route in enumerate(routes)
        ]

    def _target(self, context: Context, target: Target) -> Target:
        """Return the target; for a WebSocket, one with the open sockets of its generation."""
        if target.route.method != SOCKET:
            return target
        sockets = self._sockets.get(context)
        if sockets is None:
            sockets = self._sockets[context] = OpenSockets()
            context.spawn(sockets.guard)
        sockets.open()
        return SocketTarget(target, sockets)


_replace = msgspec.structs.replace


async def _emit(draft: Draft, event: str, value: Any, what: str, plugin: str | None) -> Any:
    """Return what the hooks make of a value; one that raises refuses the whole draft."""
    try:
        return await draft.emit(event, value)
    except VekoError:
        raise
    except Exception as error:
        raise RefusedError(
            f"a hook refused {what}: {type(error).__name__}: {error}",
            plugin=plugin,
            event=event,
            remedy="Fix the route or the hook; its error is the cause.",
        ) from error


def _around(route: Route) -> Any:
    if not route.middlewares:
        return None
    pairs = [(fn, credited_to(fn) or route.plugin) for fn in route.middlewares]
    return compose([(as_middleware(fn, plugin), plugin) for fn, plugin in pairs], run_target)


def _chunks_to_compile(routes: Sequence[Route]) -> Iterator[list[int]]:
    """Yield the indexes of routes to compile together.

    A framework may make one application of its own handlers, routers say, so those stay together;
    plain functions do not depend on each other.
    """
    plain: list[int] = []
    native: list[int] = []
    for index, route in enumerate(routes):
        (plain if inspect.isroutine(route.handler) else native).append(index)
    if len(routes) <= _CHUNK:
        yield from [list(range(len(routes)))] if routes else []
        return
    if native:
        yield native
    for begin in range(0, len(plain), _CHUNK):
        yield plain[begin : begin + _CHUNK]


def _by_owner(entries: Iterable[Entry]) -> dict[Any, list[Entry]]:
    found: dict[Any, list[Entry]] = {}
    for entry in entries:
        if entry.kind == "route":
            found.setdefault(entry.owner, []).append(entry)
    return found


async def _changed(
    draft: Draft, dropped: Sequence[Target], made: Sequence[Target]
) -> Table[Target]:
    """Return the table without some routes and with others; nobody sees what is made on the way."""
    known: Table[Target] | None = draft.before.view("route")
    table = Table() if known is None else known
    try:
        for begin in range(0, len(dropped), _CHUNK):
            leaving = dropped[begin : begin + _CHUNK]
            table = table.changed(remove=[(_method(one), one.route.path) for one in leaving])
            if draft.turns.due:
                await draft.turns.pause()
        for begin in range(0, len(made), _CHUNK):
            coming = made[begin : begin + _CHUNK]
            table = table.changed(add=[(_method(one), one.route.path, one) for one in coming])
            if draft.turns.due:
                await draft.turns.pause()
        return table
    except Taken as error:
        held: Route = error.value.route  # type: ignore[attr-defined]
        wanted: Route = error.wanted.route  # type: ignore[attr-defined]
        raise ConflictError(
            f"the route {wanted.method} {wanted.path} is taken by the plugin {held.plugin!r}"
            + (f" as {held.path}" if held.path != wanted.path else ""),
            plugin=wanted.plugin,
            remedy="Change the path, or the option `openapi`."
            if held.plugin == "openapi"
            else "Change one of the two paths, or unload the other plugin.",
        ) from None


def _method(target: Target) -> str:
    """Return the method for the table: a WebSocket has one that no request can have."""
    return HANDSHAKE if isinstance(target, SocketTarget) else target.route.method


def _post_changes(draft: Draft, dropped: Sequence[Target], made: Sequence[Target]) -> None:
    """Post events for the routes that are replaced or removed, to fire once that is so."""
    now = {(target.route.method, target.route.path): target.route for target in made}
    for target in dropped:
        after = now.get((target.route.method, target.route.path), target.route)
        if after != target.route:
            draft.post(ROUTE_UPDATE.name, after)
    for target in reversed(dropped):  # what was registered last goes first
        if (target.route.method, target.route.path) not in now:
            draft.post(ROUTE_DELETE.name, target.route)


async def _accept_middleware(draft: Draft) -> None:
    before: dict[int, tuple[Entry, Middleware]] = draft.before.view(_MADE) or {}
    made: dict[int, tuple[Entry, Middleware]] = {}
    for entry in draft.entries("middleware"):
        known = before.get(id(entry))
        if known:
            fn = known[1]
        else:
            plugin = entry.owner.name if entry.owner else None
            what = f"the middleware {entry.key}"
            fn = await _emit(draft, MIDDLEWARE_ADD.name, entry.value, what, plugin)
            fn = as_middleware(fn, plugin or "")
        made[id(entry)] = entry, fn
    chain = [(fn, entry.owner.name if entry.owner else "") for entry, fn in made.values()]
    draft.set_view("middleware", compose(chain, run_route) if chain else None)
    draft.set_view(_MADE, made)
    gone = [(entry.order[1:], fn) for key, (entry, fn) in before.items() if key not in made]
    for _, fn in sorted(gone, key=itemgetter(0), reverse=True):  # the last to come goes first
        draft.post(MIDDLEWARE_REMOVE.name, fn)

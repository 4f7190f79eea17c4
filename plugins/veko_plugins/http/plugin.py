"""The core plugin `routes`: which plugin has which route, and how routes and middleware change.

The registry keeps every plugin's raw routes as they were registered. The live ones are made from
them by the hooks on `route:load` and `route:create`, compiled by the adapter, and put into the next
routing table, all in the transaction that registers them. When such a hook itself is added or
removed, the raw routes pass the hooks again in that same transaction: no route keeps the middleware
of an unloaded plugin, and none is unguarded for a moment.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from veko import Context, Handle, Plugin
from veko.errors import ConflictError, RefusedError, RouteError, VekoError
from veko.extend import Draft, Entry, Kind

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
from .messages.problem import HTTPError
from .messages.response import Response
from .middleware import Middleware, as_middleware, compose
from .port import Adapter, Starting, find_adapter
from .route import SOCKET, Route
from .sockets.events import EVENTS as SOCKET_EVENTS
from .sockets.open_sockets import OpenSockets, SocketTarget
from .table import HANDSHAKE, Table, Taken, parse_path
from .verbs import add_middleware, add_route, add_websocket

__all__ = ["HTTP", "Routes"]

_BATCHES: Final = "route:batches"
_MADE: Final = "middleware:made"


class _Batch(msgspec.Struct, frozen=True):
    """Routes that were registered together, raw and live.

    Attributes:
        entries: The entries of the raw routes.
        targets: The live routes, compiled.
        exact: Whether there is one target for each entry, in the same order.
    """

    entries: tuple[Entry, ...]
    targets: tuple[Target, ...]
    exact: bool


_Batches = dict[Any, tuple[_Batch, ...]]


class HTTP:
    """The service `http`.

    Attributes:
        asgi: The ASGI application in front of all plugins' routes.
        adapter: The adapter that compiles and serves.
        response: The class `Response`, for core plugins, which do not import this package.
    """

    response = Response

    def __init__(self, asgi: Dispatcher, adapter: Adapter) -> None:
        self.asgi = asgi
        self.adapter = adapter

    @staticmethod
    def refusal(status: int, detail: str = "") -> Exception:
        """Return an `HTTPError`, for core plugins, which do not import this package.

        Args:
            status: The status code, 400 to 599.
            detail: What to show the client.
        """
        return HTTPError(status, detail)

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        server: str = "uvicorn",
        listener: socket.socket | None = None,
        started: Callable[[str, int], None] | None = None,
        stop: asyncio.Event | None = None,
        drain_timeout: float = 30.0,
        access_log: bool = False,
        forwarded_allow_ips: Sequence[str] = (),
    ) -> None:
        """Serve the application until `stop` is set or the call is cancelled.

        Once `stop` is set, WebSockets are closed with 1012: their handlers may wait for anything.
        Arguments and errors are those of `Adapter.serve`.
        """
        stop = stop or asyncio.Event()
        ending = asyncio.ensure_future(self._end_sockets(stop))
        try:
            await self.adapter.serve(
                self.asgi,
                host,
                port,
                server=server,
                listener=listener,
                started=started,
                stop=stop,
                drain_timeout=drain_timeout,
                access_log=access_log,
                forwarded_allow_ips=forwarded_allow_ips,
            )
        finally:
            ending.cancel()
            await asyncio.wait([ending])

    async def _end_sockets(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await self.asgi.close_sockets()


class Routes(Plugin):
    """The core plugin `routes`.

    Args:
        adapter: The HTTP adapter, or the name under which it is registered.
        dev_mode: Whether problem responses show errors and tracebacks.

    Raises:
        NotFoundError: No adapter has that name.
        OptionError: The adapter needs a distribution that is not installed.
    """

    name = "routes"
    version = "2.0.0"
    description = "The routing table, middleware, and the HTTP port that adapters implement."
    core = True

    def __init__(self, adapter: Adapter | str = "litestar", *, dev_mode: bool = False) -> None:
        self._adapter = find_adapter(adapter) if isinstance(adapter, str) else adapter
        self._dev_mode = dev_mode
        self._sockets: WeakKeyDictionary[Context, OpenSockets] = WeakKeyDictionary()

    def load(self, context: Context) -> None:
        """Declare the events, add the kinds and the verbs, and provide the service `http`."""
        for event in (*EVENTS, *SOCKET_EVENTS):
            context.declare(event)
        retested = (ROUTE_LOAD.name, ROUTE_CREATE.name)
        context.add_kind(Kind("route", accept=self._accept_routes, retest=retested))
        context.add_kind(Kind("middleware", accept=_accept_middleware))
        context.attach("add_route", add_route)
        context.attach("add_routes", self._add_routes)
        context.attach("add_websocket", add_websocket)
        context.attach("add_middleware", add_middleware)
        asgi = Dispatcher(context.kernel, dev_mode=self._dev_mode)
        context.provide("http", HTTP(asgi, self._adapter))

    def _add_routes(self, context: Context) -> Callable[..., list[Handle]]:
        """Return `context.add_routes(*handlers, path="/")`, for the framework's own handlers."""

        def add_routes(*handlers: object, path: str = "/") -> list[Handle]:
            parse_path(path)
            found = (
                route
                for handler in handlers
                for route in self._adapter.expand(context.name, path, handler)
            )
            return [context.register("route", (r.method, r.path), r) for r in found]

        return add_routes

    async def _accept_routes(self, draft: Draft) -> None:
        table: Table[Target] | None = draft.before.view("route")
        if table is None:
            table = Table()
        batches: _Batches = dict(draft.before.view(_BATCHES) or {})
        gone = {id(entry) for entry in draft.removed if entry.kind == "route"}
        again = draft.hooks_changed(ROUTE_LOAD.name, ROUTE_CREATE.name)
        dropped: list[Target] = []
        made: list[Target] = []
        owners = {entry.owner for entry in draft.removed if entry.kind == "route"}
        for owner in tuple(batches) if again else owners:
            kept: list[_Batch] = []
            for batch in batches.get(owner, ()):
                left = await self._remade(draft, batch, gone, again)
                if left is not batch:
                    old, new = set(batch.targets), set(left.targets if left else ())
                    dropped += [target for target in batch.targets if target not in new]
                    made += [t for t in (left.targets if left else ()) if t not in old]
                if left:
                    kept.append(left)
            if kept:
                batches[owner] = tuple(kept)
            else:
                batches.pop(owner, None)
        for owner, entries in _by_owner(draft.added).items():
            routes = await self._hooked(draft, [entry.value for entry in entries])
            batch = self._compile(entries, routes)
            made += batch.targets
            batches[owner] = (*batches.get(owner, ()), batch)
        draft.set_view("route", _changed(table, dropped, made))
        if isinstance(self._adapter, Starting):
            for owner in _by_owner(draft.added):
                routes = [target.route for target in batches[owner][-1].targets]
                await self._adapter.start(owner.context, routes)
        draft.set_view(_BATCHES, batches)
        _post_changes(draft, dropped, made)

    async def _remade(
        self, draft: Draft, batch: _Batch, gone: set[int], again: bool
    ) -> _Batch | None:
        """Return a batch without the routes that are removed; `None` if none is left.

        Args:
            draft: The next registry.
            batch: The batch.
            gone: The ids of the entries that are removed.
            again: Whether the routes must pass the hooks again.
        """
        entries = tuple(entry for entry in batch.entries if id(entry) not in gone)
        if not entries:
            return None
        if len(entries) == len(batch.entries) and not again:
            return batch
        if batch.exact and not again:
            pairs = zip(batch.entries, batch.targets, strict=True)
            targets = tuple(target for entry, target in pairs if id(entry) not in gone)
            return _Batch(entries, targets, exact=True)
        routes = await self._hooked(draft, [entry.value for entry in entries])
        if entries == batch.entries and routes == [target.route for target in batch.targets]:
            return batch
        return self._compile(entries, routes)

    async def _hooked(self, draft: Draft, raw: list[Route]) -> list[Route]:
        """Return the routes that the hooks make of raw ones that were registered together."""
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
        return routes

    def _compile(self, entries: tuple[Entry, ...], routes: list[Route]) -> _Batch:
        context: Context = entries[0].owner.context
        for route in routes:
            parse_path(route.path)
        endpoints = self._adapter.compile(context, routes) if routes else ()
        targets = tuple(
            self._target(context, Target(route, endpoint, _around(route)))
            for route, endpoint in zip(routes, endpoints, strict=True)
        )
        raw = [entry.value for entry in entries]
        exact = len(raw) == len(routes) and all(
            before.method == after.method and before.handler is after.handler
            for before, after in zip(raw, routes, strict=True)
        )
        return _Batch(entries, targets, exact)

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
    plugin = route.plugin
    return compose([(as_middleware(fn, plugin), plugin) for fn in route.middlewares], run_target)


def _by_owner(added: Iterable[Entry]) -> dict[Any, tuple[Entry, ...]]:
    found: dict[Any, tuple[Entry, ...]] = {}
    for entry in added:
        if entry.kind == "route":
            found[entry.owner] = (*found.get(entry.owner, ()), entry)
    return found


def _changed(
    table: Table[Target], dropped: Sequence[Target], made: Sequence[Target]
) -> Table[Target]:
    rows = [(_method(target), target.route.path, target) for target in made]
    try:
        return table.changed(
            remove=[(_method(target), target.route.path) for target in dropped], add=rows
        )
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
        route = target.route
        after = now.get((route.method, route.path))
        if after is None:
            draft.post(ROUTE_DELETE.name, route)
        elif after != route:
            draft.post(ROUTE_UPDATE.name, after)


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
    for key, (_, fn) in before.items():
        if key not in made:
            draft.post(MIDDLEWARE_REMOVE.name, fn)

"""How routes and middleware go live: what the kinds `route` and `middleware` accept.

The live routes are made from the raw ones by the hooks on `route:load` and `route:create`, compiled
by the adapter, and put into the next routing table. When such a hook itself is added or removed,
the raw routes pass the hooks again in that same transaction: no route keeps the middleware of an
unloaded plugin, and none is unguarded for a moment. A live route that a hook refuses leaves it
alone (see `refusals`); one that a plugin registers now is refused with all that comes with it.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import msgspec

from veko import Bus, Context
from veko.errors import ConflictError, RefusedError, RouteError, VekoError
from veko.extend import Call, Draft, Entry

from .._lib.route_paths import parse_path
from .batches import Batches
from .credits import credited_to, crediting
from .events import (
    MIDDLEWARE_ADD,
    MIDDLEWARE_REMOVE,
    ROUTE_CREATE,
    ROUTE_DELETE,
    ROUTE_LOAD,
    ROUTE_REFUSE,
    ROUTE_UPDATE,
)
from .exchange import Target, run_route, run_target
from .middleware import Middleware, as_middleware, compose
from .port import Adapter, CallNext, Endpoint, Starting
from .refusals import REFUSED, Refusals
from .route import SOCKET, Route, part_of
from .sockets.open_sockets import OpenSockets, SocketTarget
from .table import HANDSHAKE, Table, Taken
from .threads import Threads

__all__ = ["Acceptance", "accept_middleware"]

_BATCHES: Final = "route:batches"
_MADE: Final = "middleware:made"
_CHUNK: Final = 16
"""Routes that are compiled, or put into the table, between two looks at the clock."""

_replace = msgspec.structs.replace


class Acceptance:
    """Makes the live routes.

    Args:
        adapter: Compiles them.
        threads: Runs `def` handlers.
    """

    def __init__(self, adapter: Adapter, threads: Threads) -> None:
        self._adapter = adapter
        self._threads = threads
        self._numbers = itertools.count(1)
        self._sockets: WeakKeyDictionary[Context, OpenSockets] = WeakKeyDictionary()

    async def accept(self, draft: Draft) -> None:
        """Accept what changes of the routes; for the kind `route`.

        Raises:
            VekoError: A route that is being registered is refused; nothing has happened then.
        """
        with crediting():
            await self._accept(draft)

    async def _accept(self, draft: Draft) -> None:
        owned: dict[Any, Batches] = dict(draft.before.view(_BATCHES) or {})
        gone, added = _by_owner(draft.removed), _by_owner(draft.added)
        again = draft.hooks_changed(ROUTE_LOAD.name, ROUTE_CREATE.name)
        dropped: list[Target] = []
        made: list[Target] = []
        coming: dict[Any, list[Route]] = {}
        returning: list[tuple[Batches, int, list[Entry], Target]] = []
        refusals = Refusals(draft.before.view(REFUSED) or {})
        for owner in list(owned) if again else [one for one in gone if one in owned]:
            batches = owned[owner] = owned[owner].copy()
            left, changed = batches.remove(gone.get(owner, ()))
            dropped += left
            for number, entries in batches.entries(None if again else changed).items():
                before = batches.targets(number, entries)
                refusals.open(number)
                routes = await self._hooked(draft, owner, entries, refusals)
                if number not in changed and routes == [target.route for target in before]:
                    continue
                after = await self._remade(draft, owner, routes, refusals)
                batches.put(number, entries, after)
                dropped += before
                if draft.turns.due:
                    await draft.turns.pause()
                held = {_row(target)[:2] for target in before}
                for target in after:
                    if _row(target)[:2] in held:
                        made.append(target)
                    else:
                        returning.append((batches, number, entries, target))
            if not batches.rows:
                del owned[owner]
        for owner, entries in added.items():
            batches = owned[owner] = owned[owner].copy() if owner in owned else Batches()
            routes = await self._hooked(draft, owner, entries)
            after = await self._compile(draft, owner, routes)
            batches.put(next(self._numbers), entries, after)
            made += after
            coming[owner] = [target.route for target in after]
            if draft.turns.due:
                await draft.turns.pause()
        table = await _changed(draft, draft.before.view("route"), dropped, made)
        for batches, number, entries, target in returning:
            try:
                table = await _changed(draft, table, (), [target])
            except ConflictError as error:  # another plugin took the path meanwhile
                rest = [one for one in batches.targets(number, entries) if one is not target]
                batches.put(number, entries, rest)
                refusals.open(number, keep=True)
                refusals.add(target.route, error)
            else:
                made.append(target)
        draft.set_view("route", table)
        if isinstance(self._adapter, Starting):
            for owner, routes in coming.items():
                await self._adapter.start(owner.context, routes)
        draft.set_view(_BATCHES, owned)
        if draft.turns.due:
            await draft.turns.pause()
        draft.set_view(REFUSED, refusals.of(owned.values()))
        for refused, why in refusals.new:
            draft.post(ROUTE_REFUSE.name, refused, why)
        if draft.turns.due:
            await draft.turns.pause()
        _post_changes(draft, dropped, made)

    async def _hooked(
        self,
        draft: Draft,
        owner: Any,
        entries: Sequence[Entry],
        refusals: Refusals | None = None,
    ) -> list[Route]:
        """Return the routes that the hooks make of raw ones that were registered together.

        Args:
            draft: The next registry.
            owner: The generation that registered them.
            entries: The entries of the raw routes.
            refusals: Takes the routes that hooks refuse, if they are live already. Otherwise one
                that is refused refuses the draft.
        """
        raw: list[Route] = [entry.value for entry in entries]
        if not raw:
            return []
        if owner.record.core and getattr(owner.plugin, "apart", False):  # see `dispatch.Apart`
            return raw
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
            if refusals is not None and refusals.timeout is not None:
                refusals.add(route, refusals.timeout)
                continue
            what = f"the route {part_of(route)}"
            try:
                made = await _emit(draft, ROUTE_CREATE.name, route, what, plugin)
            except Exception as error:
                if refusals is None:
                    raise
                refusals.add(route, error)
                continue
            # A hook cannot give a route to another plugin, and methods are matched in capitals.
            method = made.method.upper()
            if (made.plugin, made.method) != (plugin, method):
                made = _replace(made, plugin=plugin, method=method)
            routes.append(made)
            if draft.turns.due:
                await draft.turns.pause()
        return routes

    async def _remade(
        self, draft: Draft, owner: Any, routes: Sequence[Route], refusals: Refusals
    ) -> list[Target]:
        """Compile what hooks made of live routes; one that they have spoilt is refused alone."""
        try:
            return await self._compile(draft, owner, routes)
        except Exception:
            made: list[Target] = []
            for route in routes:
                try:
                    made += await self._compile(draft, owner, [route])
                except Exception as error:
                    refusals.add(route, error)
            return made

    async def _compile(self, draft: Draft, owner: Any, routes: Sequence[Route]) -> list[Target]:
        context: Context = owner.context
        for route in routes:
            parse_path(route.path)
            if draft.turns.due:
                await draft.turns.pause()
        endpoints: dict[int, Endpoint] = {}
        for chunk in _chunks_to_compile(routes):
            compiled = self._adapter.compile(
                context, [self._threads.made(routes[index]) for index in chunk]
            )
            endpoints |= zip(chunk, compiled, strict=True)
            if draft.turns.due:
                await draft.turns.pause()
        targets: list[Target] = []
        for index, route in enumerate(routes):
            targets.append(self._target(context, _made(owner, route, endpoints[index])))
            if draft.turns.due:
                await draft.turns.pause()
        return targets

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


class _Counted:
    """An endpoint that returns its response, inside what probes put around it."""

    __slots__ = ("answer",)

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.answer = answer


def _made(owner: Any, route: Route, endpoint: Any) -> Target:
    """Return a target whose endpoint and middlewares are inside what probes put around them."""
    bus: Bus = owner.context.kernel.bus
    answer = getattr(endpoint, "answer", None)
    counted = bus.enclose(Call("route", part_of(route), answer or endpoint, owner))
    around: CallNext | None = None
    if route.middlewares:
        pairs = [(fn, credited_to(fn) or owner) for fn in route.middlewares]
        chain = [(as_middleware(fn, one.name), one) for fn, one in pairs]
        around = compose(chain, run_target, bus)
    return Target(route, cast("Endpoint", counted) if answer is None else _Counted(counted), around)


def _chunks_to_compile(routes: Sequence[Route]) -> Iterator[list[int]]:
    """Yield the indexes of routes to compile together.

    A framework may make one application of its own handlers, routers say, so those stay together;
    plain functions do not depend on each other.
    """
    if len(routes) <= _CHUNK:
        yield from [list(range(len(routes)))] if routes else []
        return
    plain: list[int] = []
    native: list[int] = []
    for index, route in enumerate(routes):
        (plain if inspect.isroutine(route.handler) else native).append(index)
        if len(plain) == _CHUNK:
            yield plain
            plain = []
    yield from filter(None, (plain, native))


def _by_owner(entries: Iterable[Entry]) -> dict[Any, list[Entry]]:
    found: dict[Any, list[Entry]] = {}
    for entry in entries:
        if entry.kind == "route":
            found.setdefault(entry.owner, []).append(entry)
    return found


async def _changed(
    draft: Draft,
    table: Table[Target] | None,
    dropped: Sequence[Target],
    made: Sequence[Target],
) -> Table[Target]:
    """Return a table without some routes and with others; nobody sees what is made on the way."""
    table = Table() if table is None else table
    try:
        for begin in range(0, len(dropped), _CHUNK):
            leaving = dropped[begin : begin + _CHUNK]
            table = table.changed(remove=[_row(one)[:2] for one in leaving])
            if draft.turns.due:
                await draft.turns.pause()
        for begin in range(0, len(made), _CHUNK):
            table = table.changed(add=[_row(one) for one in made[begin : begin + _CHUNK]])
            if draft.turns.due:
                await draft.turns.pause()
        return table
    except Taken as error:
        held: Route = error.value.route  # type: ignore[attr-defined]
        wanted: Route = error.wanted.route  # type: ignore[attr-defined]
        raise ConflictError(
            f"the route {part_of(wanted)} is taken by the plugin {held.plugin!r}"
            + (f" as {held.path}" if held.path != wanted.path else ""),
            plugin=wanted.plugin,
            remedy="Change the path, or the option `openapi`."
            if held.plugin == "openapi"
            else "Change one of the two paths, or unload the other plugin.",
        ) from None


def _row(target: Target) -> tuple[str, str, Target]:
    """Return a row of the table; the method of a WebSocket is one that no request can have."""
    method = HANDSHAKE if isinstance(target, SocketTarget) else target.route.method
    return method, target.route.path, target


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


async def accept_middleware(bus: Bus, draft: Draft) -> None:
    """Accept what changes of the global middleware; for the kind `middleware` of a bus."""
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
    chain = [(fn, entry.owner or "") for entry, fn in made.values()]
    draft.set_view("middleware", compose(chain, run_route, bus) if chain else None)
    draft.set_view(_MADE, made)
    gone = [(entry.order[1:], fn) for key, (entry, fn) in before.items() if key not in made]
    for _, fn in sorted(gone, key=itemgetter(0), reverse=True):  # the last to come goes first
        draft.post(MIDDLEWARE_REMOVE.name, fn)

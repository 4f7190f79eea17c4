"""Health: how often each plugin fails, and a breaker that switches off what fails too often.

The idea: the kernel counts every failure of a plugin's code and reports it, and says what it counts
against: one of the plugin's routes if the route's handler failed, otherwise the plugin. Here the
failures of each are counted again in a sliding window. A route with more than `error_threshold` of
them answers 503 from then on, and nothing else is touched; if it was the last route of its plugin,
or the failures are the plugin's own, the plugin is switched off, and so are the plugins that use
its services. After a cool-down what is off is switched on for a trial. One error during the trial
switches it off for twice as long; a trial without an error resets the breaker.

Cost: nothing for plugins that do not fail; for one that does, and each route that does, at most 61
pairs of integers, and a task while its breaker is not closed.
Promise: what the breaker has off answers 503, never 404. What stands before others' requests is
counted, but never switched off: `required` plugins, guards (`_lib.guards`), plugins that have a
middleware; core plugins neither. What a client can cause at will does not count
(`VekoError.counts`). What exceeds its budget can be switched off in the same way (see `ledger`). A
plugin on probation (see `probation`) is rolled back instead of switched off. A plugin that was
switched by hand is left alone from then on. A reload is tried at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import anyio.lowlevel
import msgspec

from veko import Context, NotFoundError, Origin, Plugin, PluginRecord, State

from .._lib.guards import guards
from .._lib.masking import masked_text
from .._lib.window import SlidingWindow
from .breakers import TURNS, Breaker, BreakerError, Breakers

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["BreakerError", "Health", "PluginHealth", "RouteOutage"]

_ERROR_EVENTS: Final = ("error:handle", "plugin:timeout", "plugin:error")


_MOST_ROUTES: Final = 1_000
"""Routes of a plugin with a breaker; beyond that, those without recent errors are forgotten."""


class RouteOutage(msgspec.Struct, frozen=True):
    """A route that answers 503 because its handler failed too often.

    Attributes:
        route: The route, as `GET /x`.
        reason: Why it is off.
        until: When it is tried again, in UTC; `None` if that depends on its plugin.
    """

    route: str
    reason: str
    until: datetime | None


class PluginHealth(msgspec.Struct, frozen=True):
    """The health of a plugin.

    Attributes:
        name: Its name.
        loaded: Whether its `load()` has run.
        active: Whether it is switched on.
        error_count: How often its code failed since it was loaded.
        recent_errors: How often its code failed within the window, its routes' handlers included.
        uptime: Seconds since it was loaded or reloaded; 0 if it is not loaded.
        health: `healthy`, `warning` or `critical`.
        reasons: Why it is not healthy, one clause for each reason.
        routes_off: The routes that are off.
    """

    name: str
    loaded: bool
    active: bool
    error_count: int
    recent_errors: int
    uptime: float
    health: Literal["healthy", "warning", "critical"]
    reasons: tuple[str, ...] = ()
    routes_off: tuple[RouteOutage, ...] = ()


class Health(Plugin):
    """The core plugin of health; the service `health` is this object.

    Args:
        warn_threshold: A plugin with more errors than this in the window has health `warning`.
        error_threshold: A route, or a plugin, with more errors than this in the window is switched
            off.
        window: Seconds for which an error counts (accurate to a sixtieth of that).
        cool_down: Seconds until what was switched off is tried again; doubled each time that it
            fails the trial.
        max_cool_down: The upper limit of that, in seconds.
        trial: Seconds that it must then run without an error.
        spared: Names of plugins that are counted, but never switched off: those without which the
            rest must not run, such as a guard. The manager passes its option `required`.
        clock: Returns seconds that never go back.
    """

    name = "health"
    version = "2.0.0"
    description = "Error counts by plugin, and a breaker"
    core = True

    def __init__(
        self,
        *,
        warn_threshold: int = 5,
        error_threshold: int = 10,
        window: float = 60.0,
        cool_down: float = 30.0,
        max_cool_down: float = 900.0,
        trial: float = 60.0,
        spared: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.warn_threshold = warn_threshold
        self.error_threshold = error_threshold
        self.window = window
        self.cool_down = cool_down
        self.max_cool_down = max_cool_down
        self.trial = trial
        self.spared = frozenset(spared)
        self._clock = clock
        self._kernel: Kernel
        self._breakers: Breakers

    def load(self, context: Context) -> None:
        """Subscribe to errors, and to every load, unload and toggle of a plugin."""
        self._kernel = context.kernel
        breakers = self._breakers = Breakers(
            context, self.cool_down, self.max_cool_down, self.trial, self._clock
        )
        context.provide("health", self)
        context.hook("error:handle", self._route_failed, priority=math.inf)
        context.hook("plugin:error", self._failed, priority=math.inf)
        context.hook("plugin:loaded", breakers.renewed, priority=math.inf)
        context.hook("plugin:unloaded", breakers.forget, priority=math.inf)
        context.hook("plugin:activated", breakers.switched_on, priority=math.inf)
        context.hook("plugin:deactivated", breakers.switched_off, priority=math.inf)

    def activate(self) -> None:
        """Catch up with what happened while this plugin was switched off."""
        self._breakers.catch_up()

    def check(self, name: str) -> PluginHealth:
        """Return the health of a plugin.

        Raises:
            NotFoundError: There is no plugin of that name.
        """
        record = self._kernel.get(name)
        if record is None:
            known = ", ".join(sorted(r.name for r in self._kernel.records() if not r.core))
            raise NotFoundError(
                f"no plugin named {name!r} is known",
                plugin=name,
                remedy=f"Known plugins: {known or 'none'}.",
            )
        breaker = self._count(record)
        now = self._clock()
        routes = list(breaker.routes.values()) if breaker is not None else []
        own = breaker.window.count(now) if breaker is not None else 0
        recent = own + sum(route.window.count(now) for route in routes)
        critical = list(self._critical(record, breaker, own, routes))
        warning = [] if critical else list(self._warnings(record, breaker, recent, routes))
        return PluginHealth(
            name=name,
            loaded=record.loaded,
            active=record.active,
            error_count=record.error_count,
            recent_errors=recent,
            uptime=record.uptime,
            health="critical" if critical else "warning" if warning else "healthy",
            reasons=(*critical, *warning),
            routes_off=tuple(self._outage(one) for one in routes if one.state == "open"),
        )

    def routes_off(self, name: str) -> int:
        """Return how many routes of a plugin are off because they failed too often."""
        breaker = self._breakers.by_plugin.get(name)
        routes = breaker.routes.values() if breaker is not None else ()
        return sum(route.state == "open" for route in routes)

    def trip(self, name: str, reason: str) -> bool:
        """Switch a plugin off as if it had failed too often, and try it again later.

        One on probation is rolled back instead.

        Args:
            name: The plugin.
            reason: Why, a clause.

        Returns:
            Whether that was begun; `False` if the plugin is never switched off (see the module), is
            not loaded, or is off already.
        """
        record = self._kernel.get(name)
        if record is None or not record.active:
            return False
        if self._rolled_back(record, reason):
            return True
        breaker = self._breaker(record)
        if self._spared(record) or breaker.state not in ("closed", "half-open"):
            return False
        self._breakers.open(breaker, reason)
        return True

    def release(self, name: str) -> None:
        """Leave a plugin as it is, on or off: somebody has switched it by hand."""
        self._breakers.release(name)

    def keeps_off(self, name: str) -> bool:
        """Return whether a breaker has switched a plugin off, or one that the plugin needs."""
        breaker = self._breakers.by_plugin.get(name)
        is_open = breaker is not None and breaker.state != "closed"
        return is_open or name in self._breakers.dependents_off

    def _outage(self, route: Breaker) -> RouteOutage:
        left = route.until - self._clock()
        until = None if math.isinf(left) else datetime.now(UTC) + timedelta(seconds=left)
        return RouteOutage(str(route.route), route.reason, until)

    def _critical(
        self, record: PluginRecord, breaker: Breaker | None, own: int, routes: list[Breaker]
    ) -> Iterator[str]:
        if record.state is State.FAILED:
            yield masked_text(f"it failed in {record.failed_step}: {record.error}")
        crashes = self._kernel.registry.get("service", "crashes")
        if crashes is not None and (reason := crashes.value.gave_up(record.name)):
            yield reason
        state = breaker.state if breaker is not None else "closed"
        if breaker is not None and state == "open":
            yield f"it is switched off: {breaker.reason}{self._when(breaker)}"
        elif breaker is not None and state == "stuck":
            yield f"it could not be switched off: {breaker.reason}"
        elif own > self.error_threshold:
            yield self._too_many(record, own)
        for route in routes:
            if route.state == "open":
                yield f"{route.what} is switched off: {route.reason}{self._when(route)}"
            elif route.window.count(self._clock()) > self.error_threshold:
                yield f"{route.what}: {route.reason}"

    def _when(self, breaker: Breaker) -> str:
        left = breaker.until - self._clock()
        return "" if math.isinf(left) else f"; it is tried again in {max(0.0, left):.0f} s"

    def _warnings(
        self, record: PluginRecord, breaker: Breaker | None, recent: int, routes: list[Breaker]
    ) -> Iterator[str]:
        for one in (breaker, *routes):
            if one is not None and one.state == "half-open":
                what = "it" if one.route is None else one.what
                yield f"{what} is on trial after {one.reason}: one more error switches it off"
        if recent > self.warn_threshold:
            yield self._too_many(record, recent)
        ledger = self._kernel.registry.get("service", "ledger")
        if ledger is not None:
            yield from ledger.value.exceeded(record.name)
        if record.name in self._breakers.dependents_off and not record.active:
            yield "it is switched off along with a plugin that it needs, and returns with it"
        for entry in record.current.entries if record.current is not None else ():
            if entry.kind == "injection":
                yield f"code was injected {entry.key}; the next reload removes it"

    def _too_many(self, record: PluginRecord, recent: int) -> str:
        errors = "1 error" if recent == 1 else f"{recent} errors"
        last = f", the last was {record.last_error}" if record.last_error else ""
        return f"{errors} within {self.window:g} s{last}"

    # -- counting

    async def _failed(self, name: str | None) -> None:
        failed = [breaker for record in self._suspects(name) if (breaker := self._count(record))]
        # The code that failed should find its plugin switched off when this returns. It must not
        # wait for the plugin's running calls: it may be one of them, or part of an operation on
        # that very plugin, and would wait for itself.
        for _ in range(TURNS):
            if not any(breaker.state == "open" and breaker.record.active for breaker in failed):
                break
            await anyio.lowlevel.checkpoint()

    def _suspects(self, name: str | None) -> Iterator[PluginRecord]:
        """Yield the plugins that may just have failed: the named one, and error handlers' plugins.

        The kernel counts a failure inside error handling, but fires no event for it.
        """
        registry = self._kernel.registry
        handlers = [entry for event in _ERROR_EVENTS for entry in registry.all("hook", event)]
        names = {getattr(e.owner, "name", None) for e in (*handlers, *registry.entries("pattern"))}
        for one in {name, *names}:
            record = self._kernel.get(one) if one is not None else None
            if record is not None:
                yield record

    def _breaker(self, record: PluginRecord) -> Breaker:
        breaker = self._breakers.by_plugin.get(record.name)
        if breaker is None or breaker.record is not record:
            breaker = Breaker(record, SlidingWindow(self.window))
            self._breakers.by_plugin[record.name] = breaker
        return breaker

    def _count(self, record: PluginRecord) -> Breaker | None:
        """Add the errors that the kernel has counted; open the breaker if they are too many."""
        breaker = self._breakers.by_plugin.get(record.name)
        if breaker is None or breaker.record is not record:
            if not record.error_count:
                return None
            breaker = self._breaker(record)
        now = self._clock()
        if breaker.update(now) and record.active and self._tripped(breaker, now):
            reason = self._too_many(record, breaker.window.count(now))
            if not self._rolled_back(record, reason) and not self._spared(record):
                self._breakers.open(breaker, reason)
        return breaker

    def _tripped(self, breaker: Breaker, now: float) -> bool:
        most = self.error_threshold if breaker.state == "closed" else 0
        return breaker.state in ("closed", "half-open") and breaker.window.count(now) > most

    def _spared(self, record: PluginRecord) -> bool:
        """Return whether a plugin is never switched off: others' requests would pass unchecked."""
        required = record.name in self.spared or record.manifest.required
        entries = record.current.entries if record.current is not None else ()
        around = any(entry.kind == "middleware" for entry in entries)
        return record.core or required or around or guards(self._kernel, record)

    def _route_failed(self, error: BaseException, origin: Origin) -> None:
        """Count a failure of a route's handler against the route, and switch it off if need be."""
        record = self._kernel.get(origin.plugin) if origin.plugin is not None else None
        if record is None or origin.part is None or not origin.counts:
            return
        breaker, now = self._breaker(record), self._clock()
        route = breaker.routes.get(origin.part)
        if route is None:
            if len(breaker.routes) >= _MOST_ROUTES:
                self._prune(breaker, now)
            route = Breaker(record, SlidingWindow(self.window), origin.part)
            breaker.routes[origin.part] = route
        breaker.count_in(route, now)
        if record.active and not record.core and self._tripped(route, now):
            reason = self._too_many(record, route.window.count(now))
            if not self._rolled_back(record, reason):
                self._breakers.open(route, reason)
                self._last_route_failed(breaker)

    def _last_route_failed(self, breaker: Breaker) -> None:
        """Switch a plugin off if all of its routes are off."""
        record = breaker.record
        live = self._breakers.live_routes(record.name)
        off = {name for name, route in breaker.routes.items() if route.state == "open"}
        if not off.issuperset(live) or breaker.state == "open" or self._spared(record):
            return
        routes = f"all {len(live)} routes are" if len(live) > 1 else "its only route is"
        last = f", the last error was {record.last_error}" if record.last_error else ""
        self._breakers.open(breaker, f"{routes} off{last}")

    @staticmethod
    def _prune(breaker: Breaker, now: float) -> None:
        for name, route in list(breaker.routes.items()):
            if route.state == "closed" and not route.window.count(now):
                del breaker.routes[name]

    def _rolled_back(self, record: PluginRecord, reason: str) -> bool:
        """Return whether the plugin is on probation and so is rolled back to its old code."""
        entry = self._kernel.registry.get("service", "probation")
        return entry is not None and bool(entry.value.take_back(record, reason))

"""Breakers: a route or a plugin that fails too often is switched off and tried again later.

A breaker is `closed` (all is well), `open` (what it watches is switched off), `half-open` (that is
on again, on trial) or `stuck` (a hook refused to let the plugin be switched off). Each breaker that
is not closed has one task. Only the task of a plugin's breaker switches the plugin on or off:
everything else sets the state of the breaker and wakes the task. A route is switched off and on at
once, since nothing has to be waited for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import anyio
import anyio.lowlevel

from veko import Context, DependencyError, Origin, PluginRecord, RefusedError, VekoError

from .._lib.window import SlidingWindow

__all__ = ["TURNS", "Breaker", "BreakerError", "Breakers"]

TURNS: Final = 20
"""Turns of the loop within which a plugin leaves the registry, unless a hook delays that."""


class BreakerError(VekoError):
    """A plugin, or a route of it, failed too often and was switched off.

    Fix and reload the plugin; what is off is tried again anyway.
    """


class Breaker:
    """The breaker of one plugin or of one route, made when it first fails.

    Attributes:
        record: The plugin.
        route: The route, as `GET /x`; `None` for the plugin as a whole.
        routes: Of a plugin: the breakers of those of its routes that have failed.
        window: The recent errors; those of a plugin's routes are not among the plugin's own.
        generation: The number of the generation that these errors belong to.
        state: See the module.
        cool_down: Seconds that the breaker stays open this time.
        until: When the cool-down or the trial ends; infinity until the plugin is off, and for a
            route as long as its plugin is.
        reason: Why the breaker opened.
        openings: How often it has opened.
        reported: How many of the openings were reported.
        running: Whether its task is running.
        changed: Wakes the task.
    """

    def __init__(
        self, record: PluginRecord, window: SlidingWindow, route: str | None = None
    ) -> None:
        self.record = record
        self.route = route
        self.routes: dict[str, Breaker] = {}
        self.window = window
        self._counted = 0
        self.generation = record.generation
        self.state: Literal["closed", "open", "half-open", "stuck"] = "closed"
        self.cool_down = 0.0
        self.until = math.inf
        self.reason = ""
        self.openings = 0
        self.reported = 0
        self.running = False
        self.changed = anyio.Event()

    @property
    def what(self) -> str:
        """What it watches, for messages."""
        return "the plugin" if self.route is None else f"the route {self.route}"

    def update(self, now: float) -> int:
        """Add the errors that the kernel counted since the last update; return how many."""
        new, self._counted = self.record.error_count - self._counted, self.record.error_count
        self.window.add(new, now)
        return new

    def count_in(self, route: Breaker, now: float) -> None:
        """Add an error that the kernel has counted to a route instead."""
        self._counted += 1
        route.window.add(1, now)

    def left(self, clock: Callable[[], float]) -> float:
        """Return the seconds until what it watches is tried again."""
        return self.cool_down if math.isinf(self.until) else self.until - clock()


class Breakers:
    """The breakers of a kernel's plugins, and the plugins switched off along with others.

    Args:
        context: The context of the plugin that owns the breakers' tasks.
        cool_down: Seconds that a breaker stays open the first time; doubled each time that what it
            watches fails its trial.
        max_cool_down: The upper limit of that, in seconds.
        trial: Seconds that this must then run without an error.
        clock: Returns seconds that never go back.

    Attributes:
        by_plugin: The breakers of the plugins that have failed, by name.
        dependents_off: Plugins that were switched off because they use a service of one with an
            open breaker, by name.
    """

    def __init__(
        self,
        context: Context,
        cool_down: float,
        max_cool_down: float,
        trial: float,
        clock: Callable[[], float],
    ) -> None:
        self._context = context
        self._kernel = context.kernel
        self._cool_down = cool_down
        self._max_cool_down = max_cool_down
        self._trial = trial
        self._clock = clock
        self._toggling: dict[str, bool] = {}
        self.by_plugin: dict[str, Breaker] = {}
        self.dependents_off: dict[str, PluginRecord] = {}

    # -- what others do to plugins

    def switched_on(self, name: str) -> None:
        """Leave a plugin alone that somebody else switched on; its dependents may follow."""
        if self._toggling.get(name) is not True:
            self.release(name)
        if self.dependents_off:
            self._context.spawn(self._switch_dependents_on)

    def switched_off(self, name: str) -> None:
        """Leave a plugin alone that somebody else switched off."""
        if self._toggling.get(name) is not False:
            self.release(name)

    def release(self, name: str) -> None:
        """Leave a plugin as it is, on or off: it was switched by hand."""
        if self.dependents_off.pop(name, None) is not None:
            self._admit(name)
        breaker = self.by_plugin.get(name)
        for one in (breaker, *breaker.routes.values()) if breaker is not None else ():
            if one.state != "closed":
                self.close(one)

    def renewed(self, name: str, record: PluginRecord) -> None:
        """Forget the errors of a plugin that was reloaded; try at once what is off of it."""
        breaker = self.by_plugin.get(name)
        if breaker is None or breaker.record is not record:
            return
        if breaker.generation == record.generation:
            return
        for one in (breaker, *breaker.routes.values()):
            one.generation = record.generation
            one.window.clear()
            if one.state == "open":
                one.cool_down = self._cool_down
                if one is breaker or breaker.state != "open":
                    one.until = self._clock()
                    one.changed.set()
            elif one.state != "closed":
                self.close(one)

    def forget(self, name: str, record: PluginRecord) -> None:
        """Forget a plugin that was unloaded."""
        if self.dependents_off.pop(name, None) is not None:
            self._admit(name)
        breaker = self.by_plugin.get(name)
        if breaker is not None and breaker.record is record:
            del self.by_plugin[name]
            for one in (breaker, *breaker.routes.values()):
                self.close(one)

    def catch_up(self) -> None:
        """Follow what others did to plugins while nobody was listening."""
        for name, breaker in list(self.by_plugin.items()):
            if self._kernel.get(name) is not breaker.record:
                self.forget(name, breaker.record)
            elif breaker.record.active is (breaker.state == "open"):
                self.release(name)
        for name, record in list(self.dependents_off.items()):
            if record.active or self._kernel.get(name) is not record:
                del self.dependents_off[name]
                self._admit(name)

    # -- what a breaker does

    def open(self, breaker: Breaker, reason: str) -> None:
        """Switch a route off, or have a plugin switched off soon; its routes answer 503 at once."""
        on_trial = breaker.state == "half-open"
        breaker.cool_down = self._longer(breaker) if on_trial else self._cool_down
        breaker.state, breaker.until, breaker.reason = "open", math.inf, reason
        breaker.openings += 1
        if breaker.route is not None:
            breaker.until = self._clock() + breaker.cool_down
        for route in breaker.routes.values():
            if route.state != "closed":  # it is tried again together with its plugin
                route.state, route.until = "open", math.inf
                route.changed.set()
        self._refuse(breaker, breaker.record.name)
        breaker.changed.set()
        if not breaker.running:
            breaker.running = True
            self._context.spawn(self._run, breaker.record.name, breaker.route)

    def close(self, breaker: Breaker) -> None:
        """Forget that something failed, and leave it as it is, on or off."""
        breaker.state, breaker.until = "closed", math.inf
        breaker.window.clear()
        breaker.changed.set()
        self._admit(breaker.record.name, breaker.route)

    def live_routes(self, name: str) -> list[str]:
        """Return the routes that a plugin has now."""
        http = self._http()
        return [] if http is None else list(http.routes(name))

    def _http(self) -> Any:
        """Return the service `http`, or `None`."""
        entry = self._kernel.bus.registry.get("service", "http")
        return None if entry is None else entry.value

    def _refuse(self, breaker: Breaker, name: str) -> None:
        """Let routes of a plugin answer 503 until a breaker tries again."""
        if (http := self._http()) is not None:
            http.refuse(name, breaker.route, functools.partial(breaker.left, self._clock))

    def _admit(self, name: str, route: str | None = None) -> None:
        if (http := self._http()) is not None:
            http.admit(name, route)

    def _longer(self, breaker: Breaker) -> float:
        return min(breaker.cool_down * 2, self._max_cool_down)

    async def _run(self, name: str, route: str | None) -> None:
        """Switch a plugin or a route off and on until its breaker is closed.

        If the task is cancelled and started again, it continues from the state of the breaker. It
        is given names rather than a breaker, because a task that has ended, and with it its
        arguments, may live on for a while, and would keep the plugin's code alive.
        """
        breaker = self.by_plugin.get(name)
        if breaker is not None and route is not None:
            breaker = breaker.routes.get(route)
        if breaker is None:
            return
        while breaker.state != "closed":
            if breaker.state == "open" and route is None and math.isinf(breaker.until):
                await self._switch_off(breaker)
            elif route is not None and breaker.reported < breaker.openings:
                breaker.reported = breaker.openings
                await self._report_opening(breaker)
            elif (left := breaker.until - self._clock()) > 0:
                breaker.changed = anyio.Event()
                with anyio.move_on_after(left):
                    await breaker.changed.wait()
            elif breaker.state == "open" and route is None:
                await self._switch_on(breaker)
            elif breaker.state == "open":
                self._try(breaker)
            else:  # the trial is passed, or the plugin that could not be switched off gets a chance
                self.close(breaker)
        breaker.running = False

    def _try(self, breaker: Breaker) -> None:
        """Put what a breaker watches on trial."""
        breaker.window.clear()
        breaker.state, breaker.until = "half-open", self._clock() + self._trial
        breaker.changed.set()
        if breaker.route is not None:
            self._admit(breaker.record.name, breaker.route)

    async def _switch_off(self, breaker: Breaker) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._toggle_off, breaker)
            # Toggling ends when the last running call of the plugin has ended, which may be long
            # after it was switched off; the report does not wait for that.
            for _ in range(TURNS):
                await anyio.lowlevel.checkpoint()
                if not breaker.record.active or breaker.state == "stuck":
                    break
            await self._report_opening(breaker)

    async def _report_opening(self, breaker: Breaker) -> None:
        name = breaker.record.name
        done = "could not be switched off" if breaker.state == "stuck" else "was switched off"
        error = BreakerError(
            f"{breaker.what} {done}: {breaker.reason}",
            plugin=name,
            path=breaker.record.source,
            remedy=f"Fix and reload it; otherwise it is tried again in {breaker.cool_down:g} s.",
        )
        await self._report(breaker.record, error)
        if breaker.route is None:
            origin = Origin(name, handler=f"{name}.breaker")
            await self._kernel.bus.emit("error:critical", error, origin)

    async def _report(self, record: PluginRecord, error: BaseException) -> None:
        """Report an error under a plugin's name, without counting it as an error of its code."""
        await self._kernel.bus.report(error, owner=record, handler=f"{record.name}.breaker")

    async def _report_refusal(self, record: PluginRecord, error: Exception) -> None:
        # The kernel reports all other errors itself.
        if isinstance(error, (DependencyError, RefusedError)):
            await self._report(record, error)

    async def _toggle_off(self, breaker: Breaker) -> None:
        """Switch a plugin off, and all that use its services."""
        record, openings = breaker.record, breaker.openings
        dependents = list(self._dependents(record, []))
        names = [record.name, *(one.name for one in dependents)]
        self._toggling |= dict.fromkeys(names, False)
        self.dependents_off |= {one.name: one for one in dependents}
        for one in dependents:
            self._refuse(breaker, one.name)
        try:
            await self._kernel.toggle(record.name, False, cascade=True, users=True)
        except Exception as error:
            if record.active and breaker.state == "open":
                breaker.state = "stuck"
                breaker.reason += f"; {error}"
                self._admit(breaker.record.name, breaker.route)
                self._context.spawn(self._switch_dependents_on)
        finally:
            for name in names:
                self._toggling.pop(name, None)
            for one in dependents:
                if one.active and self.dependents_off.pop(one.name, None) is not None:
                    self._admit(one.name)
            # While this waited for running calls, somebody may have switched the plugin on, and it
            # may have failed again: then the next opening sets the time.
            same_opening = breaker.openings == openings and breaker.state != "closed"
            if same_opening and math.isinf(breaker.until):
                breaker.until = self._clock() + breaker.cool_down

    def _dependents(self, record: PluginRecord, seen: list[PluginRecord]) -> Iterator[PluginRecord]:
        for one in self._kernel.dependents(record.name, users=True):
            if one is not record and one not in seen:
                seen.append(one)
                yield one
                yield from self._dependents(one, seen)

    async def _switch_on(self, breaker: Breaker) -> None:
        """Put a plugin and its routes on trial. Its dependents follow when it is on."""
        record = breaker.record
        breaker.update(self._clock())
        self._try(breaker)
        try:
            await self._toggle_on(record)
        except Exception as error:
            if record.loaded and breaker.state == "half-open":
                breaker.state = "open"
                breaker.reason = f"it could not be switched on again: {error}"
                breaker.cool_down = self._longer(breaker)
                breaker.until = self._clock() + breaker.cool_down
                await self._report_refusal(record, error)
            return
        if breaker.state == "half-open":
            for route in breaker.routes.values():
                if route.state == "open":
                    self._try(route)
            self._admit(breaker.record.name, breaker.route)

    async def _toggle_on(self, record: PluginRecord) -> None:
        self._toggling[record.name] = True
        try:
            await self._kernel.toggle(record.name, True)
        finally:
            self._toggling.pop(record.name, None)

    async def _switch_dependents_on(self) -> None:
        """Switch dependents on again whose dependencies are all active again."""
        for one in sorted(self.dependents_off.values(), key=lambda one: one.rank):
            needs = [self._kernel.get(name) for name in self._kernel.needs(one)]
            ready = all(need is not None and need.active for need in needs)
            if ready and one.name in self.dependents_off and not one.active:
                del self.dependents_off[one.name]
                try:
                    await self._toggle_on(one)
                except Exception as error:
                    await self._report_refusal(one, error)
                self._admit(one.name)

"""Health: how often each plugin fails, and a breaker that switches off one that fails too often.

The idea: the kernel counts every failure of a plugin's code and reports it as `plugin:error`; here
the failures of each plugin are counted again in a sliding window. A plugin with more than
`error_threshold` of them is switched off, and so are all plugins that depend on it. After a
cool-down it is switched on for a trial. One error during the trial switches it off for twice as
long; a trial without an error resets the breaker.

Cost: nothing for plugins that do not fail; for one that does, at most 61 pairs of integers, and a
task while its breaker is not closed.
Promise: a plugin on probation (see `probation`) is rolled back instead of switched off, a
`required` one too. A plugin that was switched by hand is left alone from then on. A reload is tried
at once. Core plugins and `required` ones are counted, but never switched off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Final, Literal

import anyio.lowlevel
import msgspec

from veko import Context, NotFoundError, Plugin, PluginRecord, State

from .breakers import TURNS, Breaker, BreakerError, Breakers
from .window import SlidingWindow

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["BreakerError", "Health", "PluginHealth"]

_ERROR_EVENTS: Final = ("error:handle", "plugin:timeout", "plugin:error")


class PluginHealth(msgspec.Struct, frozen=True):
    """The health of a plugin.

    Attributes:
        name: Its name.
        loaded: Whether its `load()` has run.
        active: Whether it is switched on.
        error_count: How often its code failed since it was loaded.
        recent_errors: How often its code failed within the window.
        uptime: Seconds since it was loaded or reloaded; 0 if it is not loaded.
        health: `healthy`, `warning` or `critical`.
        reasons: Why it is not healthy, one clause for each reason.
    """

    name: str
    loaded: bool
    active: bool
    error_count: int
    recent_errors: int
    uptime: float
    health: Literal["healthy", "warning", "critical"]
    reasons: tuple[str, ...] = ()


class Health(Plugin):
    """The core plugin of health; the service `health` is this object.

    Args:
        warn_threshold: A plugin with more errors than this in the window has health `warning`.
        error_threshold: A plugin with more errors than this in the window is switched off.
        window: Seconds for which an error counts (accurate to a sixtieth of that).
        cool_down: Seconds until a plugin that was switched off is tried again; doubled each time
            that it fails the trial.
        max_cool_down: The upper limit of that, in seconds.
        trial: Seconds that a plugin must then run without an error.
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
        recent = breaker.window.count(self._clock()) if breaker is not None else 0
        critical = list(self._critical(record, breaker, recent))
        warning = [] if critical else list(self._warnings(record, breaker, recent))
        return PluginHealth(
            name=name,
            loaded=record.loaded,
            active=record.active,
            error_count=record.error_count,
            recent_errors=recent,
            uptime=record.uptime,
            health="critical" if critical else "warning" if warning else "healthy",
            reasons=(*critical, *warning),
        )

    def release(self, name: str) -> None:
        """Leave a plugin as it is, on or off: somebody has switched it by hand."""
        self._breakers.release(name)

    def keeps_off(self, name: str) -> bool:
        """Return whether a breaker has switched a plugin off, or one that the plugin needs."""
        breaker = self._breakers.by_plugin.get(name)
        is_open = breaker is not None and breaker.state != "closed"
        return is_open or name in self._breakers.dependents_off

    def _critical(
        self, record: PluginRecord, breaker: Breaker | None, recent: int
    ) -> Iterator[str]:
        if record.state is State.FAILED:
            yield f"it failed in {record.failed_step}: {record.error}"
        state = breaker.state if breaker is not None else "closed"
        if breaker is not None and state == "open":
            left = breaker.until - self._clock()
            when = "" if math.isinf(left) else f"; it is tried again in {max(0.0, left):.0f} s"
            yield f"it is switched off: {breaker.reason}{when}"
        elif breaker is not None and state == "stuck":
            yield f"it could not be switched off: {breaker.reason}"
        elif recent > self.error_threshold:
            yield self._too_many(record, recent)

    def _warnings(
        self, record: PluginRecord, breaker: Breaker | None, recent: int
    ) -> Iterator[str]:
        if breaker is not None and breaker.state == "half-open":
            yield f"it is on trial after {breaker.reason}: one more error switches it off"
        if recent > self.warn_threshold:
            yield self._too_many(record, recent)
        if record.name in self._breakers.dependents_off and not record.active:
            yield "it is switched off along with a plugin that it needs, and returns with it"

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

    def _count(self, record: PluginRecord) -> Breaker | None:
        """Add the errors that the kernel has counted; open the breaker if they are too many."""
        breaker = self._breakers.by_plugin.get(record.name)
        if breaker is None or breaker.record is not record:
            if not record.error_count:
                return None
            breaker = Breaker(record, SlidingWindow(self.window))
            self._breakers.by_plugin[record.name] = breaker
        now = self._clock()
        spared = record.core or record.name in self.spared
        if breaker.update(now) and record.active:
            recent = breaker.window.count(now)
            most = self.error_threshold if breaker.state == "closed" else 0
            if breaker.state in ("closed", "half-open") and recent > most:
                reason = self._too_many(record, recent)
                if not self._rolled_back(record, reason) and not spared:
                    self._breakers.open(breaker, reason)
        return breaker

    def _rolled_back(self, record: PluginRecord, reason: str) -> bool:
        """Return whether the plugin is on probation and so is rolled back to its old code."""
        entry = self._kernel.registry.get("service", "probation")
        return entry is not None and bool(entry.value.take_back(record, reason))

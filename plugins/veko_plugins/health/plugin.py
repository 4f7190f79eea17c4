"""Health: how often each plugin fails, and a breaker that switches off what fails too often.

The idea: every failure of a plugin's code is counted by the kernel and told as `plugin:error`; here
they are counted again in a window that slides. A plugin with more than `error_threshold` of them is
switched off, those that need it with it (nobody is asked), and after a cool-down it is tried again:
one more error and it is off for twice as long, a quiet period and all is forgotten.

Cost: nothing for plugins that do not fail; for one that does, at most 61 pairs of integers, and a
task while its breaker is not closed.
Promise: a plugin on probation (see `probation`) is not switched off but taken back, `required`
ones too; one that is switched by hand, by whoever, is left alone from then on; new code (a
reload) is tried at once; core and `required` plugins are counted and never switched off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Final, Literal

import anyio.lowlevel
import msgspec

from veko import Context, NotFoundError, Plugin, PluginRecord, State

from .._lib.uptime import uptime_of
from .breakers import TURNS, BreakerError, Breakers, Watch
from .window import Window

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["BreakerError", "Health", "PluginHealth"]

_TELLING: Final = ("error:handle", "plugin:timeout", "plugin:error")


class PluginHealth(msgspec.Struct, frozen=True):
    """How a plugin fares.

    Attributes:
        name: Its name.
        loaded: Whether its `load()` has run.
        active: Whether it is switched on.
        error_count: How often its code failed since it was loaded.
        recent_errors: How often within the window.
        uptime: Seconds since it was loaded or reloaded; 0 if it is not loaded.
        health: `healthy`, `warning` or `critical`.
        reasons: Why it is not healthy, a sentence each.
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
        warn_threshold: More errors than that within the window are a warning.
        error_threshold: More than that, and the plugin is switched off.
        window: Seconds that an error counts for; it is left out within a sixtieth after that.
        cool_down: Seconds until a plugin that was switched off is tried again; twice as many each
            time that fails.
        max_cool_down: What they are doubled up to.
        trial: Seconds that it must then pass without an error.
        spared: Plugins that are counted and never switched off: those without which the rest must
            not run, a guard say (the manager gives `required`).
        clock: Gives seconds that never go back.
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
        """Listen to failures, and to who switches what."""
        self._kernel = context.kernel
        self._breakers = Breakers(
            context, self.cool_down, self.max_cool_down, self.trial, self._clock
        )
        context.provide("health", self)
        context.hook("plugin:error", self._failed, priority=math.inf)
        context.hook("plugin:loaded", self._renewed, priority=math.inf)
        context.hook("plugin:unloaded", self._gone, priority=math.inf)
        context.hook("plugin:activated", self._switched_on, priority=math.inf)
        context.hook("plugin:deactivated", self._switched_off, priority=math.inf)

    def activate(self, context: Context) -> None:
        """Catch up with what others did while this was switched off."""
        for name, watch in list(self._breakers.watches.items()):
            if context.kernel.get(name) is not watch.record:
                self._gone(name, watch.record)
            elif watch.record.active is (watch.breaker == "open"):
                self._breakers.close(watch)
        dragged = self._breakers.dragged
        for name, record in list(dragged.items()):
            if record.active or context.kernel.get(name) is not record:
                del dragged[name]

    def check(self, name: str) -> PluginHealth:
        """Tell how a plugin fares.

        Raises:
            NotFoundError: There is no plugin of that name.
        """
        record = self._kernel.get(name)
        if record is None:
            known = ", ".join(sorted(r.name for r in self._kernel.records() if not r.core))
            raise NotFoundError(
                f"no plugin {name!r} is known", plugin=name, remedy=f"Known: {known or 'none'}."
            )
        watch = self._count(record)
        recent = watch.window.count(self._clock()) if watch is not None else 0
        critical = list(self._critical(record, watch, recent))
        warning = [] if critical else list(self._warnings(record, watch, recent))
        return PluginHealth(
            name=name,
            loaded=record.loaded,
            active=record.active,
            error_count=record.error_count,
            recent_errors=recent,
            uptime=uptime_of(record),
            health="critical" if critical else "warning" if warning else "healthy",
            reasons=(*critical, *warning),
        )

    def release(self, name: str) -> None:
        """Leave a plugin as it is: somebody has switched it by hand."""
        self._breakers.dragged.pop(name, None)
        watch = self._breakers.watches.get(name)
        if watch is not None and watch.breaker != "closed":
            self._breakers.close(watch)

    def _critical(self, record: PluginRecord, watch: Watch | None, recent: int) -> Iterator[str]:
        if record.state is State.FAILED:
            yield f"it failed in {record.failed_step}: {record.error}"
        breaker = watch.breaker if watch is not None else "closed"
        if watch is not None and breaker == "open":
            left = watch.until - self._clock()
            when = "" if math.isinf(left) else f"; it is tried again in {max(0.0, left):.0f} s"
            yield f"it is switched off: {watch.why}{when}"
        elif watch is not None and breaker == "stuck":
            yield f"it could not be switched off: {watch.why}"
        elif recent > self.error_threshold:
            yield self._too_many(record, recent)

    def _warnings(self, record: PluginRecord, watch: Watch | None, recent: int) -> Iterator[str]:
        if watch is not None and watch.breaker == "half-open":
            yield f"it is on trial after {watch.why}: one more error switches it off"
        if recent > self.warn_threshold:
            yield self._too_many(record, recent)
        if record.name in self._breakers.dragged and not record.active:
            yield "it is switched off with a plugin that it needs, and comes back with that"

    def _too_many(self, record: PluginRecord, recent: int) -> str:
        errors = "1 error" if recent == 1 else f"{recent} errors"
        last = f", the last was {record.last_error}" if record.last_error else ""
        return f"{errors} within {self.window:g} s{last}"

    # -- counting

    async def _failed(self, name: str | None) -> None:
        failed = [watch for record in self._suspects(name) if (watch := self._count(record))]
        # Whoever failed shall find its plugin off, but may not wait for its running calls: it may
        # be one of them, or part of an operation on that very plugin.
        for _ in range(TURNS):
            if not any(watch.breaker == "open" and watch.record.active for watch in failed):
                break
            await anyio.lowlevel.checkpoint()

    def _suspects(self, name: str | None) -> Iterator[PluginRecord]:
        """Give the plugins that may just have failed.

        What fails while an error is being handled is counted by the kernel, but not told.
        """
        registry = self._kernel.registry
        telling = [entry for event in _TELLING for entry in registry.all("hook", event)]
        names = {getattr(e.owner, "name", None) for e in (*telling, *registry.entries("pattern"))}
        for one in {name, *names}:
            record = self._kernel.get(one) if one is not None else None
            if record is not None:
                yield record

    def _count(self, record: PluginRecord) -> Watch | None:
        """Take in what the kernel has counted meanwhile; open the breaker if it is too much."""
        watch = self._breakers.watches.get(record.name)
        if watch is None or watch.record is not record:
            if not record.error_count:
                return None
            watch = self._breakers.watches[record.name] = Watch(record, Window(self.window))
        now = self._clock()
        spared = record.core or record.name in self.spared
        if watch.update(now) and record.active:
            recent = watch.window.count(now)
            most = self.error_threshold if watch.breaker == "closed" else 0
            if watch.breaker in ("closed", "half-open") and recent > most:
                why = self._too_many(record, recent)
                if not self._taken_back(record, why) and not spared:
                    self._breakers.open(watch, why)
        return watch

    def _taken_back(self, record: PluginRecord, why: str) -> bool:
        """Tell whether it has new code, and gets its old one back instead of being switched off."""
        entry = self._kernel.registry.get("service", "probation")
        return entry is not None and bool(entry.value.take_back(record, why))

    # -- what others do to plugins

    def _switched_on(self, name: str) -> None:
        if self._breakers.switched(name, True):
            self.release(name)

    def _switched_off(self, name: str) -> None:
        if self._breakers.switched(name, False):
            self.release(name)

    def _renewed(self, name: str, record: PluginRecord) -> None:
        """New code: what the old one did is forgotten, and an open breaker tries it at once."""
        watch = self._breakers.watches.get(name)
        if watch is None or watch.record is not record or watch.generation == record.generation:
            return
        watch.generation = record.generation
        watch.window.clear()
        if watch.breaker == "open":
            self._breakers.hurry(watch)
        elif watch.breaker != "closed":
            self._breakers.close(watch)

    def _gone(self, name: str, record: PluginRecord) -> None:
        self._breakers.dragged.pop(name, None)
        watch = self._breakers.watches.get(name)
        if watch is not None and watch.record is record:
            del self._breakers.watches[name]
            self._breakers.close(watch)

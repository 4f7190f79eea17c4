"""Breakers: plugins that failed too often are switched off, tried again, and left alone if well.

A breaker is `closed`; `open` while its plugin is off; `half-open` while that is on again and on
trial; `stuck` if the plugin could not be switched off (a hook refused it). One that is not closed
has a task, which is the only one that switches its plugin: who opens, closes or hurries a breaker
sets what it is and wakes the task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, Literal

import anyio
import anyio.lowlevel

from veko import Context, DependencyError, Origin, PluginRecord, RefusedError, VekoError

from .window import Window

__all__ = ["TURNS", "BreakerError", "Breakers", "Watch"]

TURNS: Final = 20
"""Turns of the loop within which a plugin leaves the registry unless a hook keeps it waiting."""


class BreakerError(VekoError):
    """A plugin failed too often and was switched off. Mend it; it is tried again by itself."""


class Watch:
    """What is known of a plugin that has failed.

    Attributes:
        record: The plugin.
        window: Its failures.
        generation: The number of the generation that they are of.
        breaker: What its breaker is.
        cool_down: Seconds that the breaker stays open, this time.
        until: When that ends, or the trial; infinity before the plugin is off.
        why: What opened it.
        times: How often it was opened.
        guarded: Whether a task goes with it.
        changed: Wakes that.
    """

    __slots__ = (
        "_seen",
        "breaker",
        "changed",
        "cool_down",
        "generation",
        "guarded",
        "record",
        "times",
        "until",
        "why",
        "window",
    )

    def __init__(self, record: PluginRecord, window: Window) -> None:
        self.record = record
        self.window = window
        self._seen = 0
        self.generation = record.generation
        self.breaker: Literal["closed", "open", "half-open", "stuck"] = "closed"
        self.cool_down = 0.0
        self.until = math.inf
        self.why = ""
        self.times = 0
        self.guarded = False
        self.changed = anyio.Event()

    def update(self, now: float) -> int:
        """Take in what the kernel has counted since the last time; returns how many that are."""
        news, self._seen = self.record.error_count - self._seen, self.record.error_count
        self.window.add(news, now)
        return news


class Breakers:
    """The breakers of a kernel's plugins, and what was switched off along with them.

    Args:
        context: Whose their tasks are.
        cool_down: Seconds that a breaker stays open the first time; twice as many each time that
            its plugin fails its trial.
        max_cool_down: What they are doubled up to.
        trial: Seconds that a plugin must then pass without an error.
        clock: Gives seconds that never go back.

    Attributes:
        watches: What is known of the plugins that have failed, by name.
        dragged: Plugins that were switched off because they need one that was, by name.
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
        self._moving: dict[str, bool] = {}
        self.watches: dict[str, Watch] = {}
        self.dragged: dict[str, PluginRecord] = {}

    def open(self, watch: Watch, why: str) -> None:
        """Switch a plugin off soon."""
        on_trial = watch.breaker == "half-open"
        watch.cool_down = self._longer(watch) if on_trial else self._cool_down
        watch.breaker, watch.until, watch.why = "open", math.inf, why
        watch.times += 1
        watch.changed.set()
        if not watch.guarded:
            watch.guarded = True
            self._context.spawn(self._guard, watch.record.name)

    def close(self, watch: Watch) -> None:
        """Forget that a plugin failed, and leave it as it is."""
        watch.breaker, watch.until = "closed", math.inf
        watch.window.clear()
        watch.changed.set()

    def hurry(self, watch: Watch) -> None:
        """Try a plugin whose breaker is open now, as if for the first time."""
        watch.cool_down, watch.until = self._cool_down, self._clock()
        watch.changed.set()

    def switched(self, name: str, on: bool) -> bool:
        """Note that a plugin was switched; true if it was not done here."""
        by_hand = self._moving.get(name) is not on
        if by_hand:
            self.dragged.pop(name, None)
        if on and self.dragged:
            self._context.spawn(self._bring_back)
        return by_hand

    def _longer(self, watch: Watch) -> float:
        return min(watch.cool_down * 2, self._max_cool_down)

    async def _guard(self, name: str) -> None:
        """Go with a breaker until it is closed. Begun anew, it goes on where it was.

        It gets a name, because a task that has ended may be kept for a while, and what it got too.
        """
        watch = self.watches.get(name)
        if watch is None:
            return
        while watch.breaker != "closed":
            if watch.breaker == "open" and math.isinf(watch.until):
                await self._switch_off(watch)
            elif (left := watch.until - self._clock()) > 0:
                watch.changed = anyio.Event()
                with anyio.move_on_after(left):
                    await watch.changed.wait()
            elif watch.breaker == "open":
                await self._switch_on(watch)
            else:  # it passed its trial, or switching it off may be tried again
                self.close(watch)
        watch.guarded = False

    async def _switch_off(self, watch: Watch) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._toggle_off, watch)
            for _ in range(TURNS):  # it is told when it is off, not when its last call has ended
                await anyio.lowlevel.checkpoint()
                if not watch.record.active or watch.breaker == "stuck":
                    break
            await self._tell(watch)

    async def _tell(self, watch: Watch) -> None:
        name = watch.record.name
        done = "could not be switched off" if watch.breaker == "stuck" else "is switched off"
        error = BreakerError(
            f"it {done}: {watch.why}",
            plugin=name,
            path=watch.record.source,
            remedy=f"Mend and reload it; else it is tried again in {watch.cool_down:g} s.",
        )
        await self._report(watch.record, error)
        await self._kernel.bus.emit(
            "error:critical", error, Origin(name, handler=f"{name}.breaker")
        )

    async def _report(self, record: PluginRecord, error: BaseException) -> None:
        """Report it as that of the plugin, without counting it as an error of its code."""
        await self._kernel.bus.report(error, owner=record, handler=f"{record.name}.breaker")

    async def _report_refusal(self, record: PluginRecord, error: Exception) -> None:
        if isinstance(error, (DependencyError, RefusedError)):  # the kernel has told of others
            await self._report(record, error)

    async def _toggle_off(self, watch: Watch) -> None:
        """Switch a plugin off, and those that need it."""
        record, times = watch.record, watch.times
        needing = list(self._needing(record, []))
        moving = dict.fromkeys([record.name, *(one.name for one in needing)], False)
        self._moving |= moving
        self.dragged |= {one.name: one for one in needing}
        try:
            await self._kernel.toggle(record.name, False, cascade=True)
        except Exception as error:
            if record.active and watch.breaker == "open":
                watch.breaker = "stuck"
                watch.why += f"; {error}"
                self._context.spawn(self._bring_back)
        finally:
            for name in moving:
                self._moving.pop(name, None)
            for one in needing:
                if one.active:
                    self.dragged.pop(one.name, None)
            # Somebody may have switched it on meanwhile, and it may have failed again.
            if watch.times == times and watch.breaker != "closed" and math.isinf(watch.until):
                watch.until = self._clock() + watch.cool_down

    def _needing(self, record: PluginRecord, seen: list[PluginRecord]) -> Iterator[PluginRecord]:
        for one in self._kernel.dependents(record.name):
            if one is not record and one not in seen:
                seen.append(one)
                yield one
                yield from self._needing(one, seen)

    async def _switch_on(self, watch: Watch) -> None:
        """Try a plugin again; what was switched off with it follows when it is on."""
        record = watch.record
        watch.update(self._clock())
        watch.window.clear()
        watch.breaker, watch.until = "half-open", self._clock() + self._trial
        try:
            await self._toggle_on(record)
        except Exception as error:
            if record.loaded and watch.breaker == "half-open":
                watch.breaker, watch.why = "open", f"it could not be switched on again: {error}"
                watch.cool_down = self._longer(watch)
                watch.until = self._clock() + watch.cool_down
                await self._report_refusal(record, error)

    async def _toggle_on(self, record: PluginRecord) -> None:
        self._moving[record.name] = True
        try:
            await self._kernel.toggle(record.name, True)
        finally:
            self._moving.pop(record.name, None)

    async def _bring_back(self) -> None:
        """Switch on what was switched off with a plugin that it needs, if that is there again."""
        for one in sorted(self.dragged.values(), key=lambda one: one.rank):
            needs = [self._kernel.get(name) for name in one.needs()]
            there = all(need is not None and need.active for need in needs)
            if there and one.name in self.dragged and not one.active:
                del self.dragged[one.name]
                try:
                    await self._toggle_on(one)
                except Exception as error:
                    await self._report_refusal(one, error)

"""The core plugin `ledger`: what plugins use of the processor, of time and of memory.

It adds together what others measure: samples of processor time (`sampler`), the durations of calls
(`metrics`), blocks of the event loop (`watchdog`), allocations (tracemalloc). Once a second it
compares that with the budgets of plugins. If a plugin exceeds its budget, `budget:exceeded` is
emitted and its health is `warning`; if the budget says so, the breaker of the core plugin `health`
switches it off and tries it again later.

Cost: 0.1% of the processor time that is used, nothing while nothing is, and a wake-up a second.
Tracing memory slows everything that allocates down, two times and more, so it is off by default.
Promise: the parts add up to the processor time of the process. What must not be switched off
(`required` plugins, guards, plugins with middleware) is only warned about.
"""

from __future__ import annotations

import asyncio
import logging
import time
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import anyio.to_thread
import msgspec
from msgspec import Meta

from veko import Context, Plugin

from .._lib.blame import allocated_by
from ..reports import Budget, PluginUsage, RouteUsage, Usage
from .budgets import Excess, Meter, budget_of
from .events import BUDGET_EXCEEDED, Overrun
from .sampler import Sampler
from .stacks import Payer, Stacks

if TYPE_CHECKING:
    from veko import Kernel, PluginRecord

__all__ = ["Ledger", "Settings"]

_log: Final = logging.getLogger("veko.ledger")
_SECOND: Final = 1e9
_RECENT: Final = 10
"""Ticks, of a second each, over which the present load of a plugin is averaged."""
_MEMORY_EVERY: Final = 30.0
"""Seconds between two measurements of memory: each copies all traces."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugins.ledger]` in `veko.toml`.

    Attributes:
        interval: Seconds of processor time between two samples. Linux counts it in steps of its
            timer, often of 4 ms.
        memory: Whether to trace allocations, so that memory is known by plugin. It slows everything
            that allocates down, two times and more.
    """

    interval: Annotated[float, Meta(ge=0.001, le=1)] = 0.01
    memory: bool = False


class Shares(NamedTuple):
    """The parts of the process's processor time, from 0 to 1.

    Attributes:
        plugins: By plugin.
        routes: By the plugin and the name of a route, as `GET /x`.
    """

    plugins: dict[str, float]
    routes: dict[tuple[str, str], float]


class Ledger(Plugin):
    """The core plugin of the resource ledger; the service `ledger` is this object.

    Args:
        clock: Returns seconds that never go back.
    """

    name = "ledger"
    version = "2.0.0"
    description = "Processor time, waiting and memory by plugin and by route; budgets"
    config_schema = Settings
    core = True

    _context: Context
    _kernel: Kernel

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    async def load(self, context: Context) -> None:
        """Begin to measure."""
        settings = msgspec.convert(context.config or {}, Settings)
        self._context, self._kernel = context, context.kernel
        self._stacks = Stacks(context.kernel)
        self._sampler = Sampler(self._stacks.payer, settings.interval, self._sampling_failed)
        self._loop = asyncio.get_running_loop()
        self._since, self._began = datetime.now(UTC), self._clock()
        self._unloaded = 0
        self._recent: deque[tuple[float, dict[str | None, int]]] = deque(maxlen=_RECENT + 1)
        self._charged: dict[str, int] = {}
        self._blocked: dict[str, float] = {}
        self._blocks: dict[tuple[str, int], float] = {}
        self._memory: dict[str, int] = {}
        self._memory_at = -_MEMORY_EVERY
        self._meters: dict[str, Meter] = {}
        context.declare(BUDGET_EXCEEDED)
        context.provide("ledger", self)
        context.hook("config:validate", self._check_budget, priority=float("-inf"))
        context.hook("plugin:loaded", self._loaded, priority=float("inf"))
        context.hook("plugin:unloaded", self._gone, priority=float("inf"))
        context.hook("loop:blocked", self._loop_blocked, observe=True)
        await context.enter(self._measuring(settings.memory))
        context.every(1.0, self.tick)

    @asynccontextmanager
    async def _measuring(self, memory: bool) -> AsyncIterator[None]:
        traces = memory and not tracemalloc.is_tracing()
        if traces:
            tracemalloc.start()
        self._sampler.start()
        try:
            yield
        finally:
            self._sampler.stop()
            if traces:
                tracemalloc.stop()

    # -- reports

    def report(self) -> Usage:
        """Return what the process has used since the ledger began, by plugin and by route."""
        spent = self._sampler.spent()
        total = self._sampler.total()  # read later: a sample may come between the two
        by_plugin = _by_plugin(spent)
        loaded = [record for record in self._kernel.records() if record.loaded and not record.core]
        plugins = [self._plugin(one, by_plugin.get(one.name, 0), total) for one in loaded]
        routes: dict[tuple[str, str], list[int]] = {}
        for (plugin, route), used in spent.items():
            if route is not None:
                row = routes.setdefault(route, [0, 0])
                row[0] += used
                row[1] += used if plugin == route[0] else 0
        host = total - self._unloaded - sum(by_plugin.get(one.name, 0) for one in loaded)
        return Usage(
            since=self._since,
            seconds=self._clock() - self._began,
            cpu=total / _SECOND,
            host=max(0, host) / _SECOND,
            unloaded=self._unloaded / _SECOND,
            plugins=tuple(sorted(plugins, key=lambda one: (-one.cpu, one.plugin))),
            routes=tuple(
                sorted(
                    (self._route(*key, row, total) for key, row in routes.items()),
                    key=lambda one: (-one.cpu, one.plugin, one.route),
                )
            ),
            samples=self._sampler.samples,
            method=self._sampler.method,
        )

    def get(self, name: str) -> PluginUsage | None:
        """Return what a plugin has used; `None` if there is no such plugin of the application."""
        return next((one for one in self.report().plugins if one.plugin == name), None)

    def shares(self) -> Shares:
        """Return the parts of the process's processor time, which cost less than a report."""
        spent = self._sampler.spent()
        total = self._sampler.total() or 1
        routes: dict[tuple[str, str], int] = {}
        for (_, route), used in spent.items():
            if route is not None:
                routes[route] = routes.get(route, 0) + used
        plugins = {name: used for name, used in _by_plugin(spent).items() if name is not None}
        return Shares(
            {name: used / total for name, used in plugins.items()},
            {route: used / total for route, used in routes.items()},
        )

    def exceeded(self, name: str) -> list[str]:
        """Return what a plugin uses too much of now, one clause for each budget."""
        meter = self._meters.get(name)
        return [] if meter is None else [one.message for one in meter.exceeded.values()]

    def _plugin(self, record: PluginRecord, used: int, total: int) -> PluginUsage:
        name = record.name
        durations = self._durations(name)
        calls = waited = None
        if durations is not None:
            # A middleware's time includes the routes in it.
            timed = [one for key, one in durations.items() if not key.startswith("middleware ")]
            calls = sum(count for count, _ in timed)
            waited = max(0.0, sum(seconds for _, seconds in timed) - used / _SECOND)
        meter = self._meters.get(name)
        watched = self._kernel.registry.get("service", "watchdog") is not None
        return PluginUsage(
            plugin=name,
            cpu=used / _SECOND,
            share=used / total if total else 0.0,
            load=self._load(name),
            calls=calls,
            waited=waited,
            blocked=self._blocked.get(name, 0.0) if watched else None,
            memory=self._memory.get(name, 0) if self._memory else None,
            budget=None if meter is None else meter.budget,
            exceeded=tuple(self.exceeded(name)),
        )

    def _route(self, plugin: str, route: str, row: list[int], total: int) -> RouteUsage:
        used, own = row
        durations = self._durations(plugin)
        calls = waited = None
        if durations is not None:
            calls, seconds = durations.get(route, (0, 0.0))
            waited = max(0.0, seconds - own / _SECOND)
        share = used / total if total else 0.0
        return RouteUsage(plugin, route, used / _SECOND, share, calls, waited)

    def _durations(self, name: str) -> dict[str, tuple[int, float]] | None:
        metrics = self._kernel.registry.get("service", "metrics")
        if metrics is None:
            return None
        found: dict[str, tuple[int, float]] = metrics.value.durations(name)
        return found

    def _load(self, name: str) -> float:
        if len(self._recent) < 2:
            return 0.0
        (begin, before), (end, now) = self._recent[0], self._recent[-1]
        return (now.get(name, 0) - before.get(name, 0)) / _SECOND / (end - begin)

    # -- what is followed

    def _check_budget(self, config: object, plugin: PluginRecord) -> None:
        """Refuse a plugin whose budget is not valid."""
        if not plugin.core:
            self._budget(plugin)

    def _budget(self, plugin: PluginRecord) -> Budget | None:
        config = self._kernel.registry.get("service", "config")
        section = None if config is None else config.value.budget(plugin.name, plugin.manifest)
        return None if section is None else budget_of(plugin.name, section, self._impossible())

    def _impossible(self) -> dict[str, str]:
        """Return which fields of a budget have no effect here, and why."""
        found: dict[str, str] = {}
        if self._kernel.registry.get("service", "watchdog") is None:
            found["blocked"] = "nothing measures it: the option `watchdog` is 0"
        if not tracemalloc.is_tracing():
            found["memory"] = (
                "nothing measures it: set memory = true in [plugins.ledger], which slows "
                "everything that allocates down, or run with python -X tracemalloc"
            )
        if self._kernel.registry.get("service", "health") is None:
            found["off"] = "nothing switches plugins off: the core plugin `health` is left out"
        return found

    def _loaded(self, name: str, record: PluginRecord) -> None:
        self._stacks.add(record)
        if record.core:
            return
        budget = self._budget(record)
        if budget is None:
            self._meters.pop(name, None)
        else:
            self._meters[name] = Meter(budget, self._clock)

    def _gone(self, name: str) -> None:
        record = self._kernel.get(name)
        if record is not None and record.loaded:
            return
        self._stacks.remove(name)
        self._meters.pop(name, None)
        self._blocked.pop(name, None)
        self._charged.pop(name, None)
        self._unloaded += self._sampler.forget(name)

    def _loop_blocked(self, block: Any, plugin: str | None) -> None:
        key = (block.path, block.line)
        seconds = block.total - self._blocks.get(key, 0.0)
        self._blocks[key] = block.total
        if plugin is not None:
            self._blocked[plugin] = self._blocked.get(plugin, 0.0) + seconds
            if plugin in self._meters:
                self._meters[plugin].add(blocked=seconds)

    def _sampling_failed(self, error: Exception) -> None:
        # In a signal handler, or in a thread: neither may do more than this.
        self._loop.call_soon_threadsafe(
            _log.error, "samples have ended, so nothing is counted any more: %r", error
        )

    # -- budgets

    async def tick(self) -> None:
        """Compare what plugins have used since the last call with their budgets."""
        self._sampler.check()
        now = _by_plugin(self._sampler.spent())
        self._recent.append((self._clock(), now))
        await self._measure_memory()
        for name, meter in list(self._meters.items()):
            used = now.get(name, 0)
            new = (used - self._charged.get(name, 0)) / _SECOND
            self._charged[name] = used
            meter.add(cpu=max(0.0, new), memory=self._memory.get(name))
            for excess in meter.check():
                await self._exceeded(name, meter, excess)

    async def _measure_memory(self) -> None:
        now = self._clock()
        if tracemalloc.is_tracing() and now - self._memory_at >= _MEMORY_EVERY:
            self._memory_at = now
            self._memory = await anyio.to_thread.run_sync(allocated_by, self._stacks.owner_of)

    async def _exceeded(self, name: str, meter: Meter, excess: Excess) -> None:
        off = meter.budget.then == "off" and self._switch_off(name, excess.message)
        if off:
            meter.clear()  # it is measured again when it is tried again
        _log.warning("%s: %s%s", name, excess.message, "; it is switched off" if off else "")
        overrun = Overrun(
            name,
            excess.resource,
            excess.used,
            excess.budget,
            meter.budget.window,
            off,
            excess.message,
        )
        await self._kernel.bus.emit(BUDGET_EXCEEDED.name, overrun, name)

    def _switch_off(self, name: str, reason: str) -> bool:
        health = self._kernel.registry.get("service", "health")
        return health is not None and bool(health.value.trip(name, reason))


def _by_plugin(spent: dict[Payer, int]) -> dict[str | None, int]:
    found: dict[str | None, int] = {}
    for payer, used in spent.items():
        found[payer.plugin] = found.get(payer.plugin, 0) + used
    return found

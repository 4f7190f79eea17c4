"""Metrics: how often each plugin's handlers are called, and how long they take.

The idea: a probe puts two looks at the clock around every plugin's handler, and a histogram of our
own counts per plugin and event. Nothing is computed until somebody asks.

Cost: 0.15 to 0.35 µs a call, most of it the two looks at the clock, once the event is hot
(`benchmarks/metrics.py`); 1 KiB for each event that a plugin was called for. The host's own
handlers are not timed and cost nothing, nor does anything when this plugin is left out or switched
off. Memory is asked of tracemalloc, whose snapshot takes longer the more is traced.
Promise: a call that fails or is cancelled is counted like any other; a quantile is at most 4.5% off
what was measured (see `_histogram`); what is not known is `None`. Nothing here keeps a plugin's
code alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from veko import Context, Plugin, Subscription
from veko.extend import Probe, Snippet

from .._lib.home import allocated
from .._lib.uptime import uptime_of
from .histogram import SHORT, SLOTS, Histogram, merged, quantile

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["OTHER", "CallMetrics", "Metrics", "PluginMetrics"]

MOST_EVENTS: Final = 1000
OTHER: Final = "**"
"""Under this name a plugin's events are counted together once it had `MOST_EVENTS`."""


_ENDED: Final = f"""\
mt_took = mt_clock() - mt_begin
if mt_took < {SHORT}: mt_counts$[mt_slots[mt_took]] += 1
else: mt_late$(mt_took)"""
TIMING: Final = Snippet(before="mt_begin = mt_clock()", after=_ENDED, failed=_ENDED)


class CallMetrics(msgspec.Struct, frozen=True):
    """Calls of a plugin's handlers of one event.

    Attributes:
        calls: How many have ended, those that failed or were cancelled included.
        p50: The duration in seconds that half of them did not exceed; `None` without calls.
        p95: The same for 95%.
        p99: The same for 99%.
    """

    calls: int
    p50: float | None
    p95: float | None
    p99: float | None


class PluginMetrics(msgspec.Struct, frozen=True):
    """What is measured of a plugin.

    Attributes:
        uptime: Seconds since it was loaded or reloaded; 0 if it is not loaded.
        memory: Bytes allocated by code in its own files and not freed yet, if tracemalloc traces
            and the plugin came from files; otherwise `None`.
        error_count: How often its code failed since it was loaded.
        last_check: When this was found, in UTC.
        health: `healthy`, `warning` or `critical`; `None` if there is no plugin `health`.
        calls: How many calls of its handlers have ended.
        p50: The duration in seconds that half of them did not exceed; `None` without calls.
        p95: The same for 95%.
        p99: The same for 99%.
        events: The same by event, or by pattern where the handler is on one.
    """

    uptime: float
    memory: int | None
    error_count: int
    last_check: datetime
    health: str | None
    calls: int
    p50: float | None
    p95: float | None
    p99: float | None
    events: dict[str, CallMetrics]


class Metrics(Plugin):
    """The core plugin of metrics; the service `metrics` is this object.

    Args:
        clock: Gives nanoseconds that never go back.
    """

    name = "metrics"
    version = "2.0.0"
    description = "Calls and latency by plugin and event"
    core = True

    def __init__(self, *, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock = clock
        self._kernel: Kernel | None = None
        self._histograms: dict[str, dict[str, Histogram]] = {}

    def load(self, context: Context) -> None:
        """Time the handlers of all plugins."""
        self._kernel = context.kernel
        self._histograms = {}
        context.provide("metrics", self)
        context.probe(self._probe)
        context.hook("plugin:unloaded", self._forget, priority=float("-inf"))

    def activate(self, context: Context) -> None:
        """Forget plugins that left while this was switched off."""
        for name in [name for name in self._histograms if context.kernel.get(name) is None]:
            del self._histograms[name]

    def unload(self) -> None:
        """Let go of the kernel."""
        self._kernel = None

    def get(self, name: str) -> PluginMetrics | None:
        """Return what is measured of a plugin; `None` if there is none of that name."""
        record = self._kernel.get(name) if self._kernel is not None else None
        if record is None:
            return None
        counts = {event: h.counts for event, h in self._histograms.get(name, {}).items()}
        whole = _calls(merged(list(counts.values())))
        return PluginMetrics(
            uptime=uptime_of(record),
            memory=allocated(record),
            error_count=record.error_count,
            last_check=datetime.now(UTC),
            health=self._health(name),
            calls=whole.calls,
            p50=whole.p50,
            p95=whole.p95,
            p99=whole.p99,
            events={event: _calls(same) for event, same in counts.items()},
        )

    def histograms(self, name: str) -> dict[str, list[int]]:
        """Return the counts of a plugin's calls by event, for export.

        Count `i` is of durations in (2**((i-1)/8), 2**(i/8)] ns: the buckets of an OpenTelemetry
        exponential histogram of scale 3, whose bucket `i-1` it is; count 0 is of all up to 1 ns.
        """
        return {event: list(h.counts) for event, h in self._histograms.get(name, {}).items()}

    def _probe(self, event: str, subscriptions: Sequence[Subscription]) -> Probe:
        return Probe(None, [self._timing(subscription) for subscription in subscriptions])

    def _timing(self, subscription: Subscription) -> Snippet | None:
        """Return what times a handler."""
        name = getattr(subscription.owner, "name", None)
        if name is None or self._kernel is None or self._kernel.get(name) is None:
            return None
        # By what it subscribed to: a pattern may hear of names without end.
        histogram = self._histogram(name, subscription.event)
        return TIMING._replace(
            names={
                "mt_clock": self._clock,
                "mt_slots": SLOTS,
                "mt_counts$": histogram.counts,
                "mt_late$": histogram.add,
            }
        )

    def _histogram(self, name: str, event: str) -> Histogram:
        of_plugin = self._histograms.setdefault(name, {})
        key = event if event in of_plugin or len(of_plugin) < MOST_EVENTS else OTHER
        return of_plugin.setdefault(key, Histogram())

    def _forget(self, name: str) -> None:
        if self._kernel is None or self._kernel.get(name) is None:
            self._histograms.pop(name, None)

    def _health(self, name: str) -> str | None:
        assert self._kernel is not None
        entry = self._kernel.registry.get("service", "health")
        return None if entry is None else str(entry.value.check(name).health)


def _calls(counts: list[int]) -> CallMetrics:
    total = sum(counts)
    p50, p95, p99 = (quantile(counts, total, q) for q in (0.5, 0.95, 0.99))
    return CallMetrics(total, p50, p95, p99)

"""Metrics: how often each plugin's code is called, how long that takes, and how often it fails.

The idea: a probe reads the clock before and after every call of a plugin's hooks, route handlers,
middleware, commands and tasks, and counts the duration in a histogram by plugin and event (or
route, middleware, ...). Of handlers that follow one another, each begins when the one before it has
ended. Quantiles are computed when somebody asks.

Cost: 0.1 to 0.2 µs a call once the event is hot, most of it for reading the clock
(`benchmarks/metrics.py`); 1 KiB for each event that a plugin handles. The application's own
handlers are not timed and cost nothing; nothing is timed while this plugin is left out or switched
off. Asking for memory takes a snapshot of tracemalloc, which costs more the more is traced.
Promise: calls that fail or are cancelled are counted like any others; a quantile is at most 4.5%
off the measured duration (see `histogram`); a value that is not known is `None`. Nothing here keeps
a plugin's code alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from veko import Context, Plugin, Subscription
from veko.extend import Probe, Snippet

from .._lib.blame import allocated
from .._lib.cache_counts import cache_counts
from .histogram import SHORT, SLOTS, Histogram, merged, quantile, total_seconds
from .windows import Window

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["OTHER", "CacheMetrics", "CallMetrics", "Metrics", "PluginMetrics"]

MOST_EVENTS: Final = 1000
OTHER: Final = "**"
"""The name under which all further events of a plugin with `MOST_EVENTS` are counted together."""


_BEGIN: Final = "mt_begin = mt_clock()"
_ENDED: Final = f"""\
mt_end = mt_clock()
mt_took = mt_end - mt_begin
mt_begin = mt_end
if mt_took < {SHORT}: mt_counts$[mt_slots[mt_took]] += 1
else: mt_long$(mt_took)"""
_FAILED: Final = f"{_ENDED}\nmt_failed$(error)"
FIRST: Final = Snippet(before=_BEGIN, after=_ENDED, failed=_FAILED)
# A handler begins when the timed one before it has ended, which saves half of the looks at the
# clock; reporting a failure takes long, so what comes after one looks again.
NEXT: Final = Snippet(alone=_BEGIN, after=_ENDED, failed=_FAILED)


class CallMetrics(msgspec.Struct, frozen=True):
    """Calls of a plugin's handlers of one event, or of one of its routes, middlewares, ...

    Attributes:
        calls: How many calls have ended, including those that failed or were cancelled.
        p50: The median duration in seconds; `None` if there were no calls.
        p95: The 95th percentile in seconds.
        p99: The 99th percentile in seconds.
        errors: How many of the calls have failed; what a client can cause at will is no failure.
    """

    calls: int
    p50: float | None
    p95: float | None
    p99: float | None
    errors: int = 0


class CacheMetrics(msgspec.Struct, frozen=True):
    """Look-ups of a plugin's values and responses in the cache.

    Attributes:
        hits: Those that found something.
        misses: Those that did not.
        rate: The part that were hits; `None` if there were none at all.
    """

    hits: int
    misses: int
    rate: float | None


class PluginMetrics(msgspec.Struct, frozen=True):
    """The measurements of one plugin.

    Attributes:
        uptime: Seconds since it was loaded or reloaded; 0 if it is not loaded.
        memory: Bytes allocated by code in its own files and not freed yet; `None` if tracemalloc
            is not tracing, or the plugin does not come from files.
        error_count: How often its code failed since it was loaded.
        last_check: When these values were read, in UTC.
        health: `healthy`, `warning` or `critical`; `None` if the plugin `health` is not loaded.
        calls: How many calls of its code have ended; a middleware counts beside the route in it.
        p50: The median duration in seconds; `None` if there were no calls.
        p95: The 95th percentile in seconds.
        p99: The 99th percentile in seconds.
        events: Calls and durations by event, or by pattern if a handler subscribed to a pattern;
            of route handlers by route (`GET /x`), of other calls by kind and name (`middleware
            around`, `command prune`, `task poll`).
        cache: Its look-ups in the cache; `None` if there is no cache.
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
    cache: CacheMetrics | None = None


class Metrics(Plugin):
    """The core plugin of metrics; the service `metrics` is this object.

    Args:
        clock: Returns nanoseconds that never go back.
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
        """Start timing the handlers of all plugins."""
        self._kernel = context.kernel
        self._histograms = {}
        context.provide("metrics", self)
        context.probe(self._probe)
        context.hook("plugin:unloaded", self._forget, priority=float("-inf"))

    def activate(self, context: Context) -> None:
        """Forget plugins that were unloaded while this one was switched off."""
        for name in [name for name in self._histograms if context.kernel.get(name) is None]:
            del self._histograms[name]

    def unload(self) -> None:
        """Release the kernel."""
        self._kernel = None

    def get(self, name: str) -> PluginMetrics | None:
        """Return the measurements of a plugin; `None` if there is no plugin of that name."""
        record = self._kernel.get(name) if self._kernel is not None else None
        if record is None:
            return None
        known = self._histograms.get(name, {})
        whole = _calls(merged([h.counts for h in known.values()]))
        return PluginMetrics(
            uptime=record.uptime,
            memory=allocated(record),
            error_count=record.error_count,
            last_check=datetime.now(UTC),
            health=self._health(name),
            calls=whole.calls,
            p50=whole.p50,
            p95=whole.p95,
            p99=whole.p99,
            events={event: _calls(h.counts, h.errors) for event, h in known.items()},
            cache=self._cache(name),
        )

    def histograms(self, name: str) -> dict[str, list[int]]:
        """Return the counts of a plugin's calls by event, for export.

        Count `i` is the number of calls that took between 2**((i-1)/8) ns, exclusive, and 2**(i/8)
        ns, inclusive: bucket `i-1` of an OpenTelemetry exponential histogram of scale 3. Count 0 is
        the number of calls that took up to 1 ns.
        """
        return {event: list(h.counts) for event, h in self._histograms.get(name, {}).items()}

    def durations(self, name: str) -> dict[str, tuple[int, float]]:
        """Return how many calls of a plugin have ended and their seconds in all, by event.

        The events are named as in `PluginMetrics.events`; the seconds are at most 4.5% off.
        """
        known = self._histograms.get(name, {})
        return {event: (sum(h.counts), total_seconds(h.counts)) for event, h in known.items()}

    def window(self) -> Window:
        """Return what measures the latency of all plugins' calls from look to look."""
        return Window(self._histograms)

    def _probe(self, event: str, subscriptions: Sequence[Subscription]) -> Probe:
        histograms = [self._timed(subscription) for subscription in subscriptions]
        snippets: list[Snippet | None] = []
        for before, own, after in zip(
            (None, *histograms), histograms, (*histograms[1:], None), strict=False
        ):
            snippets.append(None if own is None else self._timing(own, before, after))
        return Probe(None, snippets)

    def _timing(
        self, histogram: Histogram, before: Histogram | None, after: Histogram | None
    ) -> Snippet:
        """Return the code that times a handler.

        Args:
            histogram: Where its calls are counted.
            before: Where those of the handler before it are; `None` if that is not timed.
            after: Where those of the handler after it are; `None` if that is not timed.
        """
        return (FIRST if before is None else NEXT)._replace(
            resumed="" if after is None else _BEGIN,
            names={
                "mt_clock": self._clock,
                "mt_slots": SLOTS,
                "mt_counts$": histogram.counts,
                "mt_long$": histogram.add,
                "mt_failed$": histogram.failed,
            },
        )

    def _timed(self, subscription: Subscription) -> Histogram | None:
        """Return where a handler's calls are counted; `None` for the application's own handlers."""
        name = getattr(subscription.owner, "name", None)
        if name is None or self._kernel is None or self._kernel.get(name) is None:
            return None
        # Counted by the pattern, not the event: a pattern may match any number of events.
        return self._histogram(name, subscription.event)

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

    def _cache(self, name: str) -> CacheMetrics | None:
        assert self._kernel is not None
        count = cache_counts(self._kernel)
        if count is None:
            return None
        counts = count(name)
        return CacheMetrics(counts.hits, counts.misses, counts.rate)


def _calls(counts: list[int], errors: int = 0) -> CallMetrics:
    total = sum(counts)
    p50, p95, p99 = (quantile(counts, total, q) for q in (0.5, 0.95, 0.99))
    return CallMetrics(total, p50, p95, p99, errors)

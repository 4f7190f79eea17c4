"""Counting: emissions, requests, and errors across reloads, which nobody else counts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from veko.extend import Probe, Snippet

from .exponential import Exponential

if TYPE_CHECKING:
    from veko import Context, Kernel, Subscription

__all__ = ["OTHER", "Counting"]

MOST: Final = 1_000
"""Series of one metric; all further ones are counted together under `OTHER`."""
OTHER: Final = "_OTHER"
_STARTED: Final = "veko.telemetry.started"
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_LOW, _HIGH = -160, 80
"""The buckets for requests: from a microsecond to 17 minutes, eight for each power of two."""
EMITTED: Final = Snippet(before="tm_cell[0] += 1")


class _Seconds:
    """Counts of durations in seconds."""

    __slots__ = ("counts", "total", "zero")

    def __init__(self) -> None:
        self.counts = [0] * (_HIGH - _LOW)
        self.zero = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.total += seconds
        index = math.ceil(math.log2(seconds) * 8) - 1 - _LOW if seconds > 0 else -1
        if index < 0:
            self.zero += 1
        else:
            self.counts[min(index, len(self.counts) - 1)] += 1

    def reading(self) -> Exponential:
        return Exponential(_LOW, list(self.counts), self.zero, self.total)


class Counting:
    """The counts since the plugin was loaded.

    Attributes:
        errors: Errors by plugin.
        emissions: Emissions by event; each count is in a list of one, which the generated code of
            the event increments in place.
        requests: Durations by method, route and status.
    """

    def __init__(self) -> None:
        self.errors: dict[str, int] = {}
        self.emissions: dict[str, list[int]] = {}
        self.requests: dict[tuple[tuple[str, str | int], ...], _Seconds] = {}
        self._cells: dict[tuple[str, str, int], _Seconds] = {}
        self._kernel: Kernel

    def load(self, context: Context) -> None:
        """Start counting."""
        self._kernel = context.kernel
        context.probe(self._probe)
        context.hook("plugin:error", self._count_error, priority=math.inf)
        if context.kernel.registry.get("service", "http") is not None:
            context.hook("request:start", self._request_started, priority=math.inf)
            context.hook("request:end", self._request_ended, priority=-math.inf)

    def lag(self) -> float | None:
        """Return the lag of the event loop in seconds; `None` if the watchdog does not watch it."""
        entry = self._kernel.registry.get("service", "watchdog")
        return None if entry is None else entry.value.lag

    def _probe(self, event: str, subscriptions: Sequence[Subscription]) -> Probe:
        known = event in self.emissions or len(self.emissions) < MOST
        cell = self.emissions.setdefault(event if known else OTHER, [0])
        return Probe(EMITTED._replace(names={"tm_cell": cell}), [None] * len(subscriptions))

    def _count_error(self, name: str | None, error: object) -> None:
        del error
        key = name or OTHER
        if key not in self.errors and len(self.errors) >= MOST:
            key = OTHER
        self.errors[key] = self.errors.get(key, 0) + 1

    @property
    def under_way(self) -> int:
        """How many requests have started and not ended."""
        entry = self._kernel.registry.get("service", "http")
        return 0 if entry is None else int(entry.value.asgi.under_way)

    def _request_started(self, request: Any) -> None:
        request.scope[_STARTED] = time.perf_counter()

    def _request_ended(self, request: Any, response: Any) -> None:
        scope = request.scope
        started: float | None = scope.pop(_STARTED, None)
        if started is None:
            return  # the request started before this plugin was loaded
        route, status = request.route, response.status if response is not None else 500
        key = scope["method"], route.path if route is not None else OTHER, status
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cell(*key)
        cell.add(time.perf_counter() - started)

    def _cell(self, method: str, route: str, status: int) -> _Seconds:
        """Return the durations of requests with this method, route and status."""
        key: tuple[tuple[str, str | int], ...] = (
            ("http.request.method", method if method in _METHODS else OTHER),
            ("http.route", route),
            ("http.response.status_code", status),
        )
        if key not in self.requests and len(self.requests) >= MOST:
            key = (("http.route", OTHER),)
        cell = self.requests.setdefault(key, _Seconds())
        if len(self._cells) < 2 * MOST:
            self._cells[method, route, status] = cell
        return cell

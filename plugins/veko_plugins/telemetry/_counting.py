"""Counting: what nobody else counts, or counts only until a reload."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from veko.extend import Probe, Snippet

from ._readings import Exponential

if TYPE_CHECKING:
    from veko import Context, Subscription

__all__ = ["OTHER", "Counting"]

MOST: Final = 1_000
"""Series of a metric; what comes after them is counted together."""
OTHER: Final = "_OTHER"
_MARK: Final = "veko.telemetry.begun"
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_LOW, _HIGH = -160, 80
"""The buckets of a request: from a microsecond to 17 minutes, in eighths of a power of two."""


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
    """The counts of one run.

    Attributes:
        errors: By plugin.
        emissions: By event; each in a list of one, to count in place.
        requests: By method, route and status.
    """

    def __init__(self) -> None:
        self.errors: dict[str, int] = {}
        self.emissions: dict[str, list[int]] = {}
        self.requests: dict[tuple[tuple[str, str | int], ...], _Seconds] = {}
        self._cells: dict[tuple[str, str, int], _Seconds] = {}
        self._kernel: Any = None

    def load(self, context: Context) -> None:
        """Begin to count."""
        self._kernel = context.kernel
        context.probe(self._probe)
        context.hook("plugin:error", self._error, priority=math.inf)
        if context.kernel.registry.get("service", "http") is not None:
            context.hook("request:start", self._begun, priority=math.inf)
            context.hook("request:end", self._ended, priority=-math.inf)

    def lag(self) -> float | None:
        """Return how late the loop was at worst, if the watchdog watches it."""
        entry = self._kernel.registry.get("service", "watchdog")
        return None if entry is None else entry.value.lag

    def _probe(self, event: str, subscriptions: Sequence[Subscription]) -> Probe:
        known = event in self.emissions or len(self.emissions) < MOST
        cell = self.emissions.setdefault(event if known else OTHER, [0])
        return Probe(EMITTED._replace(names={"tm_cell": cell}), [None] * len(subscriptions))

    def _error(self, name: str | None, error: object) -> None:
        del error
        key = name or OTHER
        if key not in self.errors and len(self.errors) >= MOST:
            key = OTHER
        self.errors[key] = self.errors.get(key, 0) + 1

    @property
    def under_way(self) -> int:
        """Requests that have begun and not ended."""
        entry = self._kernel.registry.get("service", "http")
        return 0 if entry is None else int(entry.value.asgi.under_way)

    def _begun(self, request: Any) -> None:
        request.scope[_MARK] = time.perf_counter()

    def _ended(self, request: Any, response: Any) -> None:
        scope = request.scope
        begun: float | None = scope.pop(_MARK, None)
        if begun is None:
            return  # it began before this was loaded
        route, status = request.route, response.status if response is not None else 500
        key = scope["method"], route.path if route is not None else OTHER, status
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cell(*key)
        cell.add(time.perf_counter() - begun)

    def _cell(self, method: str, route: str, status: int) -> _Seconds:
        """Return where requests that are alike are counted."""
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

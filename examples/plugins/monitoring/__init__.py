"""Monitoring: counters over a sliding window, thresholds, and alerts when they are passed.

Each answer and each failure of a plugin is counted. Every few seconds the window is compared with
the thresholds. An alert is raised once and resolved once; both are logged, kept in the storage, and
emitted as `plugin:monitoring:alert`, on which other plugins send mails or call somebody.

Other plugins count what they want with `context.use("monitoring").count("orders")`.
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from veko import Event
from veko_plugins import CallNext, Context, HTTPError, Request, Response

from .window import Window

name = "monitoring"
version = "1.0.0"
description = "Counts requests and errors, and raises alerts when thresholds are passed"

Above0 = Annotated[float, msgspec.Meta(gt=0)]


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What raises an alert when it is passed; `None` never does."""

    error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = 0.05  # of answers, 500 and up
    p95: Above0 | None = 1.0  # seconds; 95% of requests take less
    requests: Above0 | None = None  # a second
    memory: Above0 | None = None  # MiB
    plugin_errors: Annotated[int, msgspec.Meta(ge=0)] | None = 5  # of one plugin, in the window
    counters: dict[str, float] = {}  # counted by plugins, in the window


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugins.monitoring]`."""

    window: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60  # seconds
    every: Above0 = 5.0  # seconds between two comparisons
    least: Annotated[int, msgspec.Meta(ge=1)] = 20  # requests without which rates say nothing
    kept: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 100  # alerts
    thresholds: Thresholds = Thresholds()
    # The routes are there if it is set, for requests with `Authorization: Bearer <token>`.
    token: Annotated[str, msgspec.Meta(extra={"secret": True})] = ""


config_schema = Settings


class Alert(msgspec.Struct, frozen=True):
    """An alert: what was measured, and whether that is too much or not any more."""

    measure: str
    state: str  # `raised` or `resolved`
    value: float
    threshold: float
    at: datetime


ALERT = Event(
    "plugin:monitoring:alert",
    payload=Alert,
    doc="A threshold was passed, or is kept again. Argument: the `Alert`.",
)


class Monitoring:
    """What is counted, and what is too much; the service `monitoring`."""

    def __init__(self, context: Context[Settings]) -> None:
        self._context = context
        self.window = Window(context.config.window)
        self.totals: dict[str, int] = {}
        self.raised: dict[str, Alert] = {}

    @property
    def _config(self) -> Settings:
        return self._context.config  # read each time: a change applies at once

    def count(self, counter: str, by: int = 1) -> None:
        """Count something, by a name of the caller's choice."""
        self._add(f"counter {counter}", by)

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self.window.took(seconds)
        self._add("requests")
        self._add(f"status {status // 100}xx")

    def failed(self, plugin: str | None) -> None:
        """Count a failure of a plugin."""
        self._add(f"errors {plugin or 'the application'}")

    def _add(self, counter: str, by: int = 1) -> None:
        self.window.count(counter, by)
        self.totals[counter] = self.totals.get(counter, 0) + by

    def measures(self) -> dict[str, tuple[float, float | None]]:
        """Return the present value of each measure, and its threshold."""
        config, counts = self._config, self.window.counts()
        limits = config.thresholds
        requests = counts.get("requests", 0)
        found: dict[str, tuple[float, float | None]] = {
            "requests": (requests / config.window, limits.requests),
            "memory": (memory(), limits.memory),
        }
        if requests >= config.least:
            found["error_rate"] = (counts.get("status 5xx", 0) / requests, limits.error_rate)
            found["p95"] = (self.window.quantile(0.95), limits.p95)
        for counter, value in counts.items():
            kind, _, about = counter.partition(" ")
            if kind == "errors":
                found[counter] = (value, limits.plugin_errors)
            elif kind == "counter":
                found[counter] = (value, limits.counters.get(about))
        return found

    async def compare(self) -> None:
        """Raise and resolve alerts."""
        now, found = datetime.now(UTC), self.measures()
        for measure, (value, threshold) in found.items():
            over = threshold is not None and value > threshold
            if over and measure not in self.raised and threshold is not None:
                alert = Alert(measure, "raised", value, threshold, now)
                self.raised[measure] = alert
                await self._announce(alert)
        for measure, alert in list(self.raised.items()):
            value, threshold = found.get(measure, (0.0, alert.threshold))
            if threshold is None or value <= threshold:
                del self.raised[measure]
                limit = alert.threshold if threshold is None else threshold
                await self._announce(Alert(measure, "resolved", value, limit, now))

    async def _announce(self, alert: Alert) -> None:
        level: Any = "warning" if alert.state == "raised" else "success"
        text = f"{alert.measure} is {alert.value:.4g}, the threshold is {alert.threshold:.4g}"
        self._context.log(level, f"alert {alert.state}: {text}", measure=alert.measure)
        kept = [*self.history(), msgspec.to_builtins(alert)]
        self._context.storage.set("alerts", kept[len(kept) - self._config.kept :])
        await self._context.emit("alert", alert)

    def history(self) -> list[Any]:
        """Return past alerts, the oldest first."""
        found: list[Any] = self._context.storage.get("alerts", [])
        return found


def memory() -> float:
    """Return the memory of this process in MiB, or the most that it had where that is unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def load(config: Settings, context: Context[Settings]) -> None:
    monitoring = Monitoring(context)
    context.declare(ALERT)
    context.provide("monitoring", monitoring)
    context.every(config.every, monitoring.compare)
    context.hook("plugin:error", monitoring.failed)

    def begins(request: Request) -> None:
        request.state["monitoring.begin"] = monitoring.window.clock()

    def ended(request: Request, response: Response) -> None:
        now = monitoring.window.clock()
        monitoring.answered(response.status, now - request.state.get("monitoring.begin", now))

    context.hook("request:start", begins, priority=1000, observe=True)
    context.hook("request:end", ended)

    async def guard(request: Request, call_next: CallNext) -> Any:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not secrets.compare_digest(given.encode(), context.config.token.encode()):
            raise HTTPError(401, "give the token", headers={"www-authenticate": "Bearer"})
        return await call_next(request)

    def show() -> dict[str, Any]:
        """Return totals since the start, and the measures with their thresholds."""
        measures = {
            measure: {"value": value, "threshold": threshold}
            for measure, (value, threshold) in monitoring.measures().items()
        }
        return {"totals": monitoring.totals, "measures": measures}

    def alerts() -> dict[str, Any]:
        """Return the alerts that are raised now, and past ones."""
        return {"raised": list(monitoring.raised.values()), "history": monitoring.history()}

    if config.token:
        context.add_route("GET", "/monitoring", guard, show)
        context.add_route("GET", "/monitoring/alerts", guard, alerts)

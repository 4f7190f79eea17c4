"""The core plugin `telemetry`: see the package."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from veko import Context, OptionError, Plugin

from ._counting import Counting
from ._readings import Family, read

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

__all__ = ["Telemetry"]

_log: Final = logging.getLogger("veko.telemetry")
_LAST: Final = 5.0
"""Seconds that the export at the end may take."""


class Telemetry(Plugin):
    """The core plugin `telemetry`; the service of that name is this object.

    Args:
        otlp: The base URL of a collector that takes OTLP over HTTP.
        exporter: An exporter of the OpenTelemetry SDK, instead of that.
        prometheus: The path of a route that gives Prometheus's text format.
        interval: Seconds between exports.
        resource: Attributes of what is measured (`service.name`), over those of the environment.

    Raises:
        OptionError: What it needs is not installed.
    """

    name = "telemetry"
    version = "2.0.0"
    description = "Metrics by OpenTelemetry and for Prometheus"
    core = True

    def __init__(
        self,
        *,
        otlp: str | None = None,
        exporter: MetricExporter | None = None,
        prometheus: str | None = None,
        interval: float = 60.0,
        resource: Mapping[str, str] | None = None,
    ) -> None:
        self._url, self._exporter = otlp, exporter
        self._path = prometheus
        self._interval = interval
        self._resource = dict(resource or {})
        self._counting = Counting()
        self._context: Context | None = None
        self._began = 0
        self._failing = False

    def load(self, context: Any) -> None:
        """Begin to count, and open the ways out."""
        self._context, self._counting, self._began = context, Counting(), time.time_ns()
        self._failing = False
        self._counting.load(context)
        context.provide("telemetry", self)
        if self._path is not None:
            context.add_route("GET", self._path, self._text(context))
        if self._exporter is not None or self._url is not None:
            if self._exporter is None:
                self._exporter = self._to_collector(str(self._url))
            context.spawn(self._run)

    async def unload(self) -> None:
        """Export once more, for a collector that answers soon."""
        if self._exporter is not None:
            with anyio.move_on_after(_LAST):
                await self.export()
            if self._url is not None:
                exporter, self._exporter = self._exporter, None
                with anyio.move_on_after(_LAST):
                    await anyio.to_thread.run_sync(exporter.shutdown, abandon_on_cancel=True)
        self._context = None

    def read(self) -> list[Family]:
        """Return all metrics as they are now."""
        assert self._context is not None
        return read(self._context.kernel, self._counting)

    async def export(self) -> bool:
        """Export what there is now; false if that failed, which is logged once until it works."""
        from opentelemetry.sdk.metrics.export import MetricExportResult

        from ._otlp import heard, metrics_data

        assert self._exporter is not None
        why: object
        told: list[str] = []
        before = heard.set(told)
        try:
            data = metrics_data(self.read(), self._resource, self._began)
            answer = await anyio.to_thread.run_sync(
                self._exporter.export, data, abandon_on_cancel=True
            )
        except Exception as error:
            why = error
        else:
            if answer is MetricExportResult.SUCCESS:
                if self._failing:
                    _log.info("metrics are exported again")
                self._failing = False
                return True
            why = told[-1] if told else "the exporter says so"
        finally:
            heard.reset(before)
        if not self._failing:
            _log.warning("metrics cannot be exported, which is tried again: %s", why)
        self._failing = True
        return False

    async def _run(self) -> None:
        while True:
            await anyio.sleep(self._interval)
            await self.export()

    def _to_collector(self, url: str) -> MetricExporter:
        try:
            from ._otlp import exporter_to

            return exporter_to(url, min(self._interval, 10.0))
        except ImportError as error:
            raise OptionError(
                f"metrics by OTLP need {error.name or error}, which is not installed",
                plugin=self.name,
                remedy="pip install 'veko[otel]'.",
            ) from error

    def _text(self, context: Context) -> Any:
        try:
            from ._prometheus import Text
        except ImportError as error:
            raise OptionError(
                f"metrics for Prometheus need {error.name or error}, which is not installed",
                plugin=self.name,
                remedy="pip install 'veko[prometheus]'.",
            ) from error
        write, response = Text(self.read), context.use("http").response

        def metrics() -> Any:
            return response(write(), media_type=Text.media_type)

        return metrics

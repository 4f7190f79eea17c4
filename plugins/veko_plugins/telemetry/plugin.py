"""The core plugin `telemetry`: when it exports, and where to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from veko import Context, OptionError, Plugin

from .counting import Counting
from .readings import Family, read

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

__all__ = ["Telemetry"]

_log: Final = logging.getLogger("veko.telemetry")
_LAST_EXPORT: Final = 5.0
"""Seconds that the last export, at unload, may take; and the exporter's shutdown after it."""


class Telemetry(Plugin):
    """The core plugin `telemetry`; the service of that name is this object.

    Args:
        otlp: The base URL of a collector that takes OTLP over HTTP.
        exporter: An exporter of the OpenTelemetry SDK; used instead of `otlp`.
        prometheus: The path of a route that returns Prometheus's text format.
        interval: Seconds between exports.
        resource: Attributes of this process (`service.name`); they override the environment's.

    Raises:
        OptionError: `load` raises it if a package that the export needs is not installed.
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

    def load(self, context: Context) -> None:
        """Start counting and exporting."""
        self._context, self._counting, self._began = context, Counting(), time.time_ns()
        self._failing = False
        self._counting.load(context)
        context.provide("telemetry", self)
        if self._path is not None:
            context.attached("add_route")("GET", self._path, self._text(context))
        if self._exporter is not None or self._url is not None:
            if self._exporter is None:
                self._exporter = self._to_collector(str(self._url))
            context.spawn(self._run)

    async def unload(self) -> None:
        """Export once more, if the collector answers within a few seconds."""
        if self._exporter is not None:
            with anyio.move_on_after(_LAST_EXPORT):
                await self.export()
            if self._url is not None:
                exporter, self._exporter = self._exporter, None
                with anyio.move_on_after(_LAST_EXPORT):
                    await anyio.to_thread.run_sync(exporter.shutdown, abandon_on_cancel=True)
        self._context = None

    def read(self) -> list[Family]:
        """Return the current values of all metrics."""
        assert self._context is not None
        return read(self._context.kernel, self._counting)

    async def export(self) -> bool:
        """Export the current values.

        Returns:
            Whether that succeeded. A failure is logged once, until an export succeeds again.
        """
        from opentelemetry.sdk.metrics.export import MetricExportResult

        from .otlp import export_messages, metrics_data

        assert self._exporter is not None
        reason: object
        messages: list[str] = []
        before = export_messages.set(messages)
        try:
            data = metrics_data(self.read(), self._resource, self._began)
            answer = await anyio.to_thread.run_sync(
                self._exporter.export, data, abandon_on_cancel=True
            )
        except Exception as error:
            reason = error
        else:
            if answer is MetricExportResult.SUCCESS:
                if self._failing:
                    _log.info("metrics are exported again")
                self._failing = False
                return True
            reason = messages[-1] if messages else "the exporter gave no reason"
        finally:
            export_messages.reset(before)
        if not self._failing:
            _log.warning("metrics could not be exported; Veko keeps trying: %s", reason)
        self._failing = True
        return False

    async def _run(self) -> None:
        while True:
            await anyio.sleep(self._interval)
            await self.export()

    def _to_collector(self, url: str) -> MetricExporter:
        try:
            from .otlp import exporter_to

            return exporter_to(url, min(self._interval, 10.0))
        except ImportError as error:
            raise OptionError(
                f"exporting metrics by OTLP needs {error.name or error}, which is not installed",
                plugin=self.name,
                remedy="pip install 'veko[otel]'.",
            ) from error

    def _text(self, context: Context) -> Callable[[], object]:
        try:
            from .prometheus import Text
        except ImportError as error:
            raise OptionError(
                f"metrics for Prometheus need {error.name or error}, which is not installed",
                plugin=self.name,
                remedy="pip install 'veko[prometheus]'.",
            ) from error
        write, response = Text(self.read), context.use("http").response

        def metrics() -> object:
            return response(write(), media_type=Text.media_type)

        return metrics

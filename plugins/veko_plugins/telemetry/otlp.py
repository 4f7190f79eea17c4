"""Export by OpenTelemetry: readings as the SDK's own data, for one of its exporters."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from veko import __version__

from .exponential import Exponential, bound
from .readings import Family

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

__all__ = ["export_messages", "exporter_to", "metrics_data"]

_SCALE = 3
_CUMULATIVE = AggregationTemporality.CUMULATIVE

export_messages: Final[ContextVar[list[str] | None]] = ContextVar("veko_export", default=None)
"""Takes the messages that the exporter of `exporter_to` logs during an export of ours.

The exporter reports a failure only by logging it. `Telemetry.export` puts a list here to log it
once, with the reason; while the variable is empty, the messages go to the log as usual."""


def exporter_to(url: str, timeout: float) -> MetricExporter:
    """Make an exporter that speaks OTLP over HTTP.

    Args:
        url: The collector's base URL, or its full URL ending in `/v1/metrics`.
        timeout: How long an export may take, in seconds.
    """
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    logging.getLogger(OTLPMetricExporter.__module__).addFilter(_is_not_from_export)
    full = url if url.endswith("/v1/metrics") else url.rstrip("/") + "/v1/metrics"
    return OTLPMetricExporter(endpoint=full, timeout=timeout)


def _is_not_from_export(record: logging.LogRecord) -> bool:
    messages = export_messages.get()
    if messages is not None:
        messages.append(record.getMessage())
    return messages is None


def metrics_data(
    families: Sequence[Family], resource: Mapping[str, str], began_ns: int
) -> MetricsData:
    """Turn readings into the data that an OpenTelemetry exporter takes.

    Args:
        families: The readings.
        resource: Attributes of this process; they override those of the environment.
        began_ns: When counting started, in nanoseconds of Unix time.
    """
    now = time.time_ns()
    scope = ScopeMetrics(
        InstrumentationScope("veko", __version__),
        [
            Metric(family.name, family.description, family.unit, _data(family, began_ns, now))
            for family in families
        ],
        "",
    )
    created = Resource.create(dict(resource))
    return MetricsData([ResourceMetrics(created, [scope], created.schema_url)])


def _data(family: Family, began: int, now: int) -> Any:
    if family.kind == "histogram":
        points = [
            _histogram(attributes, value, began, now)
            for attributes, value in family.points
            if isinstance(value, Exponential)
        ]
        return ExponentialHistogram(points, _CUMULATIVE)
    numbers = [
        NumberDataPoint(dict(attributes), began, now, value)
        for attributes, value in family.points
        if not isinstance(value, Exponential)
    ]
    return Sum(numbers, _CUMULATIVE, True) if family.kind == "counter" else Gauge(numbers)


def _histogram(
    attributes: Mapping[str, Any], found: Exponential, began: int, now: int
) -> ExponentialHistogramDataPoint:
    used = [index for index, count in enumerate(found.counts) if count]
    first, last = (used[0], used[-1]) if used else (0, -1)
    return ExponentialHistogramDataPoint(
        attributes=dict(attributes),
        start_time_unix_nano=began,
        time_unix_nano=now,
        count=found.count,
        sum=found.sum,
        scale=_SCALE,
        zero_count=found.zero,
        positive=Buckets(found.offset + first, found.counts[first : last + 1]),
        negative=Buckets(0, []),
        flags=0,
        # Extremes are not recorded, so these are the bounds of the outermost buckets in use.
        min=bound(found.offset + first) if used and not found.zero else 0.0,
        max=bound(found.offset + last + 1) if used else 0.0,
    )

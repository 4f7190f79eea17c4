"""The way out by OpenTelemetry: readings as the SDK's own data, given to an exporter of its."""

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

from ._readings import Exponential, Family, bound

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

__all__ = ["exporter_to", "heard", "metrics_data"]

_SCALE = 3
_CUMULATIVE = AggregationTemporality.CUMULATIVE

heard: Final[ContextVar[list[str] | None]] = ContextVar("veko_export", default=None)
"""What the exporter of `exporter_to` says of an export; without a list it says so in the log."""


def exporter_to(url: str, timeout: float) -> MetricExporter:
    """Make an exporter that speaks OTLP over HTTP.

    Args:
        url: The collector's base URL, or all of it with `/v1/metrics`.
        timeout: Seconds that an export may take.
    """
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    logging.getLogger(OTLPMetricExporter.__module__).addFilter(_is_for_the_log)
    whole = url if url.endswith("/v1/metrics") else url.rstrip("/") + "/v1/metrics"
    return OTLPMetricExporter(endpoint=whole, timeout=timeout)


def _is_for_the_log(record: logging.LogRecord) -> bool:
    told = heard.get()
    if told is not None:
        told.append(record.getMessage())
    return told is None


def metrics_data(
    families: Sequence[Family], resource: Mapping[str, str], began_ns: int
) -> MetricsData:
    """Turn readings into what an OpenTelemetry exporter takes.

    Args:
        families: The readings.
        resource: Attributes of what is measured, over those of the environment.
        began_ns: Since when it is counted, in nanoseconds of Unix time.
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
    made = Resource.create(dict(resource))
    return MetricsData([ResourceMetrics(made, [scope], made.schema_url)])


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
        # Not counted: the bounds of the outermost buckets.
        min=bound(found.offset + first) if used and not found.zero else 0.0,
        max=bound(found.offset + last + 1) if used else 0.0,
    )

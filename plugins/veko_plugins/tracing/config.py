"""How tracing is configured: `[plugins.tracing]`, and OpenTelemetry's environment variables."""

from __future__ import annotations

import fnmatch
import os
from typing import Annotated
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from veko import ConfigError

__all__ = ["TracingConfig", "collector_headers", "collector_url", "config_of"]

Ratio = Annotated[float, Meta(ge=0, le=1)]


class TracingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How tracing is configured: `[plugins.tracing]`.

    Attributes:
        otlp: The URL of a collector that takes OTLP over HTTP, such as `http://localhost:4318`.
        headers: Headers for the collector; if left out, those of `OTEL_EXPORTER_OTLP_HEADERS`.
        compress: Whether to gzip requests to the collector.
        service: The name of this service; if left out, that of `OTEL_SERVICE_NAME`, or `veko`.
        sample: The share of traces beginning here that is recorded, from 0 to 1.
        events: The same by event or pattern (`fnmatch`); `http` stands for requests, `step` for
            steps of the life cycle. -1 means that the event never makes a span, which is the
            default for `log`.
        keep: How many traces are kept in memory for `jaeger`, `veko trace` and `tracing.traces()`.
        jaeger: The path below which Jaeger's query API is served, such as `"/jaeger"`.
        max_pending: About how many spans may wait to be read; further ones are dropped and counted.
        log_ids: Whether log records get `trace_id` and `span_id`.
        core: Whether hooks and steps of core plugins are recorded too.
    """

    otlp: str | None = None
    headers: dict[str, str] | None = None
    compress: bool = False
    service: str | None = None
    sample: Ratio = 1.0
    events: dict[str, float] = {}
    keep: Annotated[int, Meta(ge=0)] = 0
    jaeger: str | None = None
    max_pending: Annotated[int, Meta(ge=1)] = 100_000
    log_ids: bool = True
    core: bool = False

    @property
    def jaeger_prefix(self) -> str | None:
        """The path of `jaeger` with a slash in front and none at the end; `None` if it is off."""
        return None if self.jaeger is None else f"/{self.jaeger.strip('/')}".rstrip("/")

    def ratio(self, event: str) -> float:
        """Return the share of traces beginning with an event that is recorded; -1: no span."""
        if event in self.events:
            return self.events[event]
        for pattern, ratio in self.events.items():
            if fnmatch.fnmatchcase(event, pattern):
                return ratio
        return -1.0 if event == "log" else self.sample


def config_of(values: object) -> TracingConfig:
    """Check and convert the values of the configuration.

    Tracing is loaded before the plugin that checks configurations of others.

    Raises:
        ConfigError: A value is unknown or has the wrong type.
    """
    try:
        return msgspec.convert(values or {}, TracingConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{str(error)[:1].lower()}{str(error)[1:]}",
            plugin="tracing",
            remedy="[plugins.tracing] has the fields of veko_plugins.tracing.TracingConfig.",
        ) from error


def collector_url() -> str | None:
    """Return the URL of the collector that OpenTelemetry's environment variables name."""
    url = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if url:
        return url
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{base.rstrip('/')}/v1/traces" if base else None


def collector_headers() -> dict[str, str]:
    """Return the headers that OpenTelemetry's environment variables set."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
    text = next((os.environ[name] for name in names if os.environ.get(name)), "")
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {unquote(name).strip().lower(): unquote(value).strip() for name, _, value in pairs}

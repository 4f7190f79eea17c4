"""The documents about what happened: the start, health, use of the processor, traces and logs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

__all__ = [
    "BackupRow",
    "HealthRow",
    "LogRow",
    "OutageRow",
    "SpanRow",
    "StartupStep",
    "Trace",
    "TraceRow",
]


class OutageRow(msgspec.Struct, frozen=True, kw_only=True):
    """A route that is off because it failed too often; `until` is when it is tried again."""

    route: str
    reason: str
    until: datetime | None


class HealthRow(msgspec.Struct, frozen=True, kw_only=True):
    """The health of a plugin; see `veko_plugins.health.PluginHealth`."""

    name: str
    health: str
    loaded: bool
    active: bool
    error_count: int
    recent_errors: int
    uptime: float
    reasons: tuple[str, ...] = ()
    routes_off: tuple[OutageRow, ...] = ()


class StartupStep(msgspec.Struct, frozen=True, kw_only=True):
    """When a plugin was loaded.

    Attributes:
        plugin: The plugin.
        core: Whether it is a part of Veko.
        begin: When loading it began, in seconds since the start.
        end: When it was live.
        wave: How many plugins deep it stands: 0 if it needs none.
        waited_for: The plugin that it needs and that was live last.
        reloaded: Whether the times are those of a later load or reload.
    """

    plugin: str
    core: bool
    begin: float
    end: float
    wave: int
    waited_for: str | None = None
    reloaded: bool = False


class BackupRow(msgspec.Struct, frozen=True, kw_only=True):
    """A backup: its file's name, size in bytes, and when it was made."""

    name: str
    path: str
    size: int
    made_at: datetime


class SpanRow(msgspec.Struct, frozen=True, kw_only=True):
    """A span of a trace.

    Attributes:
        id: Its id.
        parent: The id of the span around it; `None` for the first.
        name: Its name: the request, the event, the handler.
        begin: When it began, in seconds since the trace began.
        duration: How long it took.
        plugin: The plugin whose code it is.
        event: The event.
        failed: Whether it failed.
        attributes: Everything else.
    """

    id: str
    parent: str | None
    name: str
    begin: float
    duration: float
    plugin: str | None = None
    event: str | None = None
    failed: bool = False
    attributes: dict[str, Any] = {}


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A trace in the list of traces.

    Attributes:
        id: Its id, for `traces/{id}`.
        name: The name of its first span: `GET /x`.
        begin: When it began.
        duration: How long its first span took.
        status: The status of the response; `None` if it is no request.
        failed: Whether a span in it failed, or the status is 500 or above.
        spans: How many spans it has.
        plugins: The plugins whose code ran.
    """

    id: str
    name: str
    begin: datetime
    duration: float
    status: int | None = None
    failed: bool = False
    spans: int = 0
    plugins: tuple[str, ...] = ()


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace with its spans, in the order of their beginnings."""

    trace: TraceRow
    spans: tuple[SpanRow, ...]
    dropped: int = 0


class LogRow(msgspec.Struct, frozen=True, kw_only=True):
    """A log record; `id` counts the records of this process."""

    id: int
    time: datetime
    level: str
    logger: str
    plugin: str | None
    message: str
    traceback: str | None = None

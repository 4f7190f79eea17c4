"""The documents of the management API: everything that crosses it, in either direction.

Times are in UTC, durations in seconds. No document has a secret: where a configuration has one,
`********` stands.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from ..reports import Stats
from .change_documents import (
    Change,
    Coming,
    CommandAnswer,
    ConfigView,
    Fault,
    Plan,
    Problem,
    Step,
    StreamEvent,
    Touched,
)
from .report_documents import (
    BackupRow,
    HealthRow,
    LogRow,
    OutageRow,
    SpanRow,
    StartupStep,
    Trace,
    TraceRow,
)

__all__ = [
    "BackupRow",
    "Change",
    "Coming",
    "CommandAnswer",
    "CommandRow",
    "ConfigView",
    "ErrorRow",
    "EventRow",
    "Fault",
    "Graph",
    "GraphEdge",
    "GraphNode",
    "HealthRow",
    "HookRow",
    "LogRow",
    "OutageRow",
    "Permissions",
    "Plan",
    "PluginDetails",
    "PluginRow",
    "Problem",
    "RouteRow",
    "SpanRow",
    "StartupStep",
    "Status",
    "Step",
    "StreamEvent",
    "Touched",
    "Trace",
    "TraceRow",
]

Role = Literal["look", "operate"]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The application as a whole.

    Attributes:
        name: The name of its directory.
        version: The version of Veko.
        python: The version of Python.
        pid: The process that answers.
        workers: The processes that serve the application and have a control socket.
        state: `running`, or `stopping`.
        uptime: Seconds since the start.
        started_at: When it was started.
        stats: Counts of its plugins and what they registered.
        role: What the caller may do: `look`, or `operate` as well.
        warning: How many plugins have the health `warning`.
        critical: How many have the health `critical`.
        tracing: Whether traces are kept.
        directory: The application's directory.
    """

    name: str
    version: str
    python: str
    pid: int
    workers: tuple[int, ...]
    state: str
    uptime: float
    started_at: datetime
    stats: Stats
    role: Role
    warning: int
    critical: int
    tracing: bool
    directory: str


class PluginRow(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin in the list of plugins.

    Attributes:
        name: Its name.
        version: Its version; empty if it is not known.
        description: Its description.
        type: Its kind.
        state: Its state in the life cycle; `off` if the settings or an operator leave it out,
            `skipped` if a plugin that it needs did not load.
        core: Whether it is a part of Veko.
        loaded: Whether its `load()` has run.
        active: Whether it is switched on.
        enabled: Whether it is loaded at the next start.
        loaded_at: When it was last loaded.
        load_duration: How long that took.
        error_count: How often its code failed since it was loaded.
        errors: How often it failed within the last minute.
        error: Why it is not loaded; `None` if it is.
        dependencies: The plugins that it needs.
        source: Its file or folder.
        routes_off: How many of its routes are off because they failed too often.
        health: `healthy`, `warning` or `critical`.
        reasons: Why it is not healthy.
        calls: How many calls of its code have ended; `None` without metrics.
        p50: The median duration of a call.
        p95: The 95th percentile.
        p99: The 99th percentile.
        cpu: Its share of the process's time on the processor, 0 to 1; `None` if not measured.
        blocked_seconds: How long it blocked the event loop; `None` without the watchdog.
        permissions: What it asks for.
    """

    name: str
    version: str = ""
    description: str = ""
    type: str = "generic"
    state: str
    core: bool = False
    loaded: bool = False
    active: bool = False
    enabled: bool = True
    loaded_at: datetime | None = None
    load_duration: float = 0.0
    error_count: int = 0
    errors: int = 0
    error: str | None = None
    dependencies: tuple[str, ...] = ()
    source: str | None = None
    routes_off: int = 0
    health: str | None = None
    reasons: tuple[str, ...] = ()
    calls: int | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    cpu: float | None = None
    blocked_seconds: float | None = None
    permissions: tuple[str, ...] = ()


class HookRow(msgspec.Struct, frozen=True, kw_only=True):
    """A handler on an event; `timeout` in seconds. An infinite priority is 1e308 here."""

    event: str
    handler: str
    plugin: str | None
    priority: float
    timeout: float | None
    calls: int | None = None
    p95: float | None = None
    errors: int | None = None


class RouteRow(msgspec.Struct, frozen=True, kw_only=True):
    """A route.

    Attributes:
        method: The method; `WEBSOCKET` for a WebSocket.
        path: The path.
        plugin: The plugin that has it.
        handler: The name of the function that answers.
        state: `on`; `off` if it failed too often; `refused` if a hook refused it.
        reason: Why it is not on.
        calls: How many calls have ended; `None` without metrics.
        p95: The 95th percentile of their durations.
        errors: How many of them failed.
        cpu: Its requests' share of the process's time on the processor, 0 to 1; `None` if not
            measured.
    """

    method: str
    path: str
    plugin: str
    handler: str
    state: Literal["on", "off", "refused"] = "on"
    reason: str | None = None
    calls: int | None = None
    p95: float | None = None
    errors: int | None = None
    cpu: float | None = None


class CommandRow(msgspec.Struct, frozen=True, kw_only=True):
    """A command of a plugin.

    Attributes:
        name: Its name.
        plugin: The plugin that has it.
        description: One line about it.
        signature: Its parameters, as Python writes them.
        parameters: A JSON Schema of its keyword arguments.
    """

    name: str
    plugin: str
    description: str = ""
    signature: str = "()"
    parameters: dict[str, Any] = {}


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """An event.

    Attributes:
        name: Its name.
        payload: The type of its first argument.
        returns: Whether what a handler returns replaces the argument.
        stops: The type whose return ends the emission.
        fails_closed: Whether a handler that fails ends it.
        doc: What it says.
        declared: Whether it is declared; others are only hooked.
        hooks: How many handlers it has now.
    """

    name: str
    payload: str = "anything"
    returns: bool = False
    stops: str | None = None
    fails_closed: bool = False
    doc: str = ""
    declared: bool = True
    hooks: int = 0


class ErrorRow(msgspec.Struct, frozen=True, kw_only=True):
    """A failure of a plugin's code.

    Attributes:
        time: When it failed.
        plugin: The plugin.
        event: The event whose handler failed; `None` if it was none.
        handler: The function, or the route.
        type: The class of the error.
        message: The message, without passwords.
        file: The file of the plugin's own line.
        line: The number of that line.
        traceback: The traceback, without Veko's own frames.
    """

    time: datetime
    plugin: str | None
    event: str | None
    handler: str | None
    type: str
    message: str
    file: str | None = None
    line: int | None = None
    traceback: str = ""


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin may do.

    Attributes:
        asked: What its manifest asks for.
        granted: What it has: that, or `*` if it runs unconfined in the application's process.
        isolated: Whether it runs in a process of its own.
    """

    asked: tuple[str, ...] = ()
    granted: tuple[str, ...] = ()
    isolated: bool = False


class PluginDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one plugin.

    Attributes:
        plugin: The plugin, as in the list.
        generation: How often it was loaded or reloaded.
        manifest: Its manifest, without the schema.
        config: Its configuration with the defaults, secrets hidden.
        config_etag: The version of the configuration, for `If-Match`.
        config_schema: A JSON Schema of the configuration; `None` if it has none.
        secrets: The names of its secret fields.
        hooks: Its handlers of events.
        routes: Its routes.
        commands: Its commands.
        services: The names of the services that it provides.
        middleware: The names of its middleware.
        permissions: What it may do.
        errors: Its last failures, the newest first.
        needs: The plugins that it needs.
        needed_by: The plugins that need it.
    """

    plugin: PluginRow
    generation: int = 0
    manifest: dict[str, Any] = {}
    config: Any = None
    config_etag: str = ""
    config_schema: dict[str, Any] | None = None
    secrets: tuple[str, ...] = ()
    hooks: tuple[HookRow, ...] = ()
    routes: tuple[RouteRow, ...] = ()
    commands: tuple[CommandRow, ...] = ()
    services: tuple[str, ...] = ()
    middleware: tuple[str, ...] = ()
    permissions: Permissions = Permissions()
    errors: tuple[ErrorRow, ...] = ()
    needs: tuple[str, ...] = ()
    needed_by: tuple[str, ...] = ()


class GraphNode(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin in the graph; `missing` is a name that is needed and not there."""

    name: str
    version: str = ""
    state: str
    core: bool = False
    health: str | None = None


class GraphEdge(msgspec.Struct, frozen=True, kw_only=True):
    """`plugin` needs `needs`: it declares that, or uses these services of it."""

    plugin: str
    needs: str
    declared: bool = False
    services: tuple[str, ...] = ()


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """The dependency graph."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]

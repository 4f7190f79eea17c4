"""Reports about plugins: frozen snapshots, ready for JSON."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from veko import Kernel, PluginRecord, State
from veko.extend import Entry

from ._lib.first_use import state_of

__all__ = [
    "Budget",
    "LoadReport",
    "PluginInfo",
    "PluginUsage",
    "RouteUsage",
    "Stats",
    "Usage",
    "info_of",
    "stats_of",
]


_FAMILIES: Final = ("auth", "cache", "database")
_PARTS: Final = re.compile(r"[^a-z]+")
_Positive = Annotated[float, Meta(gt=0)]


class PluginInfo(msgspec.Struct, frozen=True):
    """A plugin as `list_plugins()` shows it.

    Attributes:
        name: Its name.
        version: Its version.
        description: Its description.
        type: Its kind, from its manifest, or else from what it registered.
        state: Its state in the life cycle.
        loaded: Whether its `load()` has run.
        active: Whether it is switched on.
        loaded_at: When it was last loaded, in UTC.
        load_duration: How long that took, in seconds.
        error_count: How often its code failed.
        dependencies: The plugins that it needs.
        source: The file or folder that it was loaded from.
        routes_off: How many of its routes are off because they failed too often.
        waiting: Whether it is active and its module has not run yet: it waits for its first use.
    """

    name: str
    version: str
    description: str
    type: str
    state: State
    loaded: bool
    active: bool
    loaded_at: datetime | None
    load_duration: float
    error_count: int
    dependencies: tuple[str, ...]
    source: str | None
    routes_off: int = 0
    waiting: bool = False


class Stats(msgspec.Struct, frozen=True):
    """Counts of the application's plugins.

    Attributes:
        total: Plugins that are loaded or loading.
        active: Plugins that are switched on.
        loaded: Plugins whose `load()` has run.
        loading: Plugins that are loading.
        hooks: Events and patterns that they subscribe to.
        hook_callbacks: Their subscriptions.
        middleware: Their middleware.
        routes: Their routes, without WebSockets.
        commands: Their commands.
        routes_off: Routes that are off because they failed too often.
        errors: How often their code failed.
        uptime: Seconds since the start.
        injections: Pieces of code that `inject_code` added to them.
    """

    total: int
    active: int
    loaded: int
    loading: int
    hooks: int
    hook_callbacks: int
    middleware: int
    routes: int
    commands: int
    errors: int
    uptime: float
    routes_off: int = 0
    injections: int = 0


class LoadReport(msgspec.Struct, frozen=True):
    """The outcome of loading everything that was found.

    Attributes:
        loaded: The names of loaded plugins, in the order in which they were loaded.
        failed: The errors by name (by path, if another plugin has that name).
        skipped: The reasons by name: the plugins that it needs and that are missing.
        off: The reasons by name: plugins that the settings leave out.
        required: The names of plugins that were found and say `required = True`, loaded or not.
    """

    loaded: list[str] = []
    failed: dict[str, Exception] = {}
    skipped: dict[str, str] = {}
    off: dict[str, str] = {}
    required: list[str] = []

    def why(self, name: str) -> str:
        """Return why a plugin is not loaded."""
        why = self.failed.get(name) or self.skipped.get(name) or self.off.get(name)
        return str(why or "it was not found")


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much a plugin may use: `[plugins.x.budget]`.

    Attributes:
        cpu: Processor time as a share of one core, on average over the window: 0.25 is a quarter.
        blocked: Seconds within the window for which it may block the event loop; counted are
            blocks that the watchdog reports.
        memory: Bytes allocated by its files, as a number or as text with a unit: `"64 MiB"`.
        window: Seconds over which `cpu` and `blocked` are counted.
        then: What happens when it uses more: `warn`, or `off` to switch the plugin off as failing
            ones are, and try it again later.
    """

    cpu: _Positive | None = None
    blocked: _Positive | None = None
    memory: _Positive | str | None = None
    window: Annotated[float, Meta(ge=1, le=86_400)] = 60.0
    then: Literal["warn", "off"] = "warn"


class PluginUsage(msgspec.Struct, frozen=True):
    """What one plugin has used.

    Attributes:
        plugin: Its name.
        cpu: Seconds of processor time, on the event loop and in threads, with all that its code
            called.
        share: The part of the process's processor time that this is, from 0 to 1.
        load: The share of one core that it used in the last ten seconds; above 1 with threads.
        calls: How many calls of its hooks, routes, commands and tasks have ended; `None` if calls
            are not measured.
        waited: Seconds that these calls lasted beyond the plugin's processor time: for input and
            output, timers, and other code of the event loop; `None` if calls are not measured.
        blocked: Seconds for which it blocked the event loop, for longer than the watchdog allows at
            a time; `None` without the watchdog.
        memory: Bytes allocated by its files and not freed, as last measured; `None` if not traced.
        budget: Its budget; `None` if it has none.
        exceeded: What it uses too much of now, one sentence for each budget.
    """

    plugin: str
    cpu: float
    share: float
    load: float
    calls: int | None = None
    waited: float | None = None
    blocked: float | None = None
    memory: int | None = None
    budget: Budget | None = None
    exceeded: tuple[str, ...] = ()


class RouteUsage(msgspec.Struct, frozen=True):
    """What the requests of one route have used.

    Attributes:
        plugin: The plugin that has the route.
        route: The route, as `GET /x`.
        cpu: Seconds of processor time: of the handler, and of all else between the match and the
            end of the request (hooks, middleware, validation, encoding).
        share: The part of the process's processor time that this is, from 0 to 1.
        calls: How many calls of the handler have ended; `None` if calls are not measured.
        waited: Seconds that the handler's calls lasted beyond its plugin's processor time in them;
            `None` if calls are not measured.
    """

    plugin: str
    route: str
    cpu: float
    share: float
    calls: int | None = None
    waited: float | None = None


class Usage(msgspec.Struct, frozen=True):
    """What the process has used since the ledger began.

    `host`, `unloaded` and the `cpu` of all plugins add up to `cpu`.

    Attributes:
        since: When the ledger began, in UTC.
        seconds: Seconds since then.
        cpu: Seconds of processor time of the whole process.
        host: Of these, what belongs to no plugin: the server, Veko, the application's own code.
        unloaded: Of these, what plugins used that are unloaded now.
        plugins: The application's plugins, the one with the most processor time first.
        routes: The routes that used any, the one with the most processor time first.
        samples: How many samples the division rests on.
        method: How samples are taken: `signal` on the main thread, `thread` elsewhere, which is
            less exact for calls shorter than 5 ms.
    """

    since: datetime
    seconds: float
    cpu: float
    host: float
    unloaded: float
    plugins: tuple[PluginUsage, ...]
    routes: tuple[RouteUsage, ...]
    samples: int
    method: Literal["signal", "thread"]


def info_of(kernel: Kernel, record: PluginRecord) -> PluginInfo:
    """Describe a plugin."""
    return PluginInfo(
        name=record.name,
        version=record.version,
        description=record.manifest.description,
        type=record.manifest.type or _type(record),
        state=record.state,
        loaded=record.loaded,
        active=record.active,
        loaded_at=record.loaded_at,
        load_duration=record.load_duration,
        error_count=record.error_count,
        dependencies=record.manifest.dependencies,
        source=str(record.source) if record.source is not None else None,
        routes_off=_routes_off(kernel, record),
        waiting=state_of(record) == "waiting",
    )


def _routes_off(kernel: Kernel, record: PluginRecord) -> int:
    health = kernel.registry.get("service", "health")
    return 0 if health is None else int(health.value.routes_off(record.name))


def _type(record: PluginRecord) -> str:
    """Return the kind of a plugin, from what it registered.

    A service counts most (an auth plugin has routes too), then what it serves, then its hooks if
    all are of one family.
    """
    entries = record.current.entries if record.current is not None else []
    kinds = {entry.kind for entry in entries}
    services = {part for e in entries if e.kind == "service" for part in _PARTS.split(str(e.key))}
    for family in _FAMILIES:
        if family in services:
            return family
    if any(_is_socket(entry) for entry in entries):
        return "websocket"
    if "route" in kinds:
        paths = [str(getattr(entry.value, "path", "")) for entry in entries]
        return "api" if any(path.startswith("/api") for path in paths) else "router"
    if "middleware" in kinds:
        return "middleware"
    if "command" in kinds:
        return "cli"
    heard = {str(e.key).partition(":")[0] for e in entries if e.kind in ("hook", "pattern")}
    return next((family for family in _FAMILIES if heard == {family}), "generic")


def _is_socket(entry: Entry) -> bool:
    return entry.kind == "route" and getattr(entry.value, "method", "") == "WEBSOCKET"


def stats_of(kernel: Kernel, uptime: float) -> Stats:
    """Count the application's plugins and what they registered."""
    records = [record for record in kernel.records() if not record.core]
    live = [entry for r in records if r.active and r.current for entry in r.current.entries]
    kinds = [entry.kind for entry in live]
    hooks = [entry.key for entry in live if entry.kind in ("hook", "pattern")]
    return Stats(
        total=sum(record.loaded or record.state is State.LOADING for record in records),
        active=sum(record.active for record in records),
        loaded=sum(record.loaded for record in records),
        loading=sum(record.state is State.LOADING for record in records),
        hooks=len(set(hooks)),
        hook_callbacks=len(hooks),
        middleware=kinds.count("middleware"),
        routes=kinds.count("route") - sum(_is_socket(entry) for entry in live),
        commands=kinds.count("command"),
        errors=sum(record.error_count for record in records),
        uptime=uptime,
        routes_off=sum(_routes_off(kernel, record) for record in records),
        injections=kinds.count("injection"),
    )

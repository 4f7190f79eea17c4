"""Reports about plugins: frozen snapshots, ready for JSON."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

import msgspec

from veko import Kernel, PluginRecord, State
from veko.extend import Entry

from ._lib.first_use import state_of

__all__ = ["LoadReport", "PluginInfo", "Stats", "info_of", "stats_of"]


_FAMILIES: Final = ("auth", "cache", "database")
_PARTS: Final = re.compile(r"[^a-z]+")


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

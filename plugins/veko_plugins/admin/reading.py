"""The verbs that only look: the application, its plugins, and what they registered."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from veko import NotFoundError, PluginRecord, StateError, __version__
from veko.errors import OptionError

from .._lib.first_use import state_of
from .._lib.masking import masked_text
from .._lib.secret_fields import secret_names
from .._lib.versions import did_you_mean
from .._source.source import Source
from ..reports import LoadReport, Usage, info_of, stats_of
from .documents import (
    BackupRow,
    CommandRow,
    EventRow,
    Graph,
    HealthRow,
    LogRow,
    OutageRow,
    Permissions,
    PluginDetails,
    PluginRow,
    Role,
    RouteRow,
    StartupStep,
    Status,
    Trace,
    TraceRow,
)
from .hiding import hidden_config, hidden_defaults, json_schema
from .records import LEVELS, Errors, Logs
from .rows import (
    command_rows,
    entries_of,
    event_rows,
    graph_of,
    hook_rows,
    needed_by,
    needs,
    plugin_service,
    route_rows,
    startup_of,
)
from .traces import trace_of, trace_row

if TYPE_CHECKING:
    from veko import Context

__all__ = ["Reading"]

_NOT_SHOWN: Final = frozenset({"config_schema", "default_config"})
_UNCONFINED: Final = ("*",)


class Reading:
    """What one can look at.

    Args:
        context: The context of the core plugin `admin`.
        directory: The application's directory.
        errors: The last failures.
        logs: The last log records.
    """

    def __init__(self, context: Context, directory: Path, errors: Errors, logs: Logs) -> None:
        self._context = context
        self._kernel = context.kernel
        self.directory = directory
        self.errors = errors
        self.logs = logs

    # -- the application

    @property
    def started_at(self) -> datetime:
        """When the application was started: when its first core plugin began to load."""
        loaded = [r for r in self._kernel.records() if r.loaded_at is not None]
        begins = [r.loaded_at.timestamp() - r.load_duration for r in loaded if r.loaded_at]
        return datetime.fromtimestamp(min(begins, default=datetime.now(UTC).timestamp()), UTC)

    def status(self, role: Role = "operate", workers: tuple[int, ...] = ()) -> Status:
        """Return the state of the application.

        Args:
            role: What the caller may do.
            workers: The processes that serve it.
        """
        began = self.started_at
        uptime = max(0.0, (datetime.now(UTC) - began).total_seconds())
        health = self._service("health")
        states = [
            health.check(r.name).health for r in self._kernel.records() if r.loaded and not r.core
        ] if health is not None else []  # fmt: skip
        tracing = self._service("tracing")
        return Status(
            name=self.directory.absolute().name,
            version=__version__,
            python=platform.python_version(),
            pid=os.getpid(),
            workers=workers or (os.getpid(),),
            state="running" if self._kernel.closing_by is None else "stopping",
            uptime=uptime,
            started_at=began,
            stats=stats_of(self._kernel, uptime),
            role=role,
            warning=states.count("warning"),
            critical=states.count("critical"),
            tracing=tracing is not None and tracing.store is not None,
            directory=str(self.directory.absolute()),
        )

    # -- plugins

    def plugins(self, *, core: bool = False) -> tuple[PluginRow, ...]:
        """Return the plugins of the application, also those that are off or did not load.

        Args:
            core: Whether Veko's own are among them.
        """
        cpu = self._cpu()
        rows = {r.name: self._row(r, cpu) for r in self._kernel.records() if core or not r.core}
        report = self._report()
        for name, error in report.failed.items():
            rows.setdefault(name, _absent(name, "failed", masked_text(str(error))))
        for name, why in report.skipped.items():
            rows.setdefault(name, _absent(name, "skipped", why))
        for name, why in report.off.items():
            rows.setdefault(name, _absent(name, "off", why, enabled=False))
        return tuple(rows.values())

    def plugin(self, name: str) -> PluginDetails:
        """Return everything about one plugin.

        Raises:
            NotFoundError: There is no plugin of that name.
        """
        record = self._kernel.get(name)
        if record is None:
            for row in self.plugins():
                if row.name == name:
                    return PluginDetails(plugin=row)
            raise self._unknown(name)
        entries = entries_of(record)
        schema = record.manifest.config_schema
        manifest = {
            field.name: getattr(record.manifest, field.name)
            for field in msgspec.structs.fields(type(record.manifest))
            if field.name not in _NOT_SHOWN
        }
        manifest["default_config"] = hidden_defaults(record)
        return PluginDetails(
            plugin=self._row(record, self._cpu()),
            generation=record.generation,
            manifest=msgspec.to_builtins(manifest, enc_hook=str),
            config=hidden_config(record),
            config_schema=json_schema(schema),
            secrets=tuple(sorted(one for one in secret_names(schema) if one is not None)),
            hooks=hook_rows(self._kernel, record),
            routes=route_rows(self._kernel, [record]),
            commands=command_rows(entries),
            services=tuple(sorted(str(e.key) for e in entries if e.kind == "service")),
            middleware=tuple(str(e.key) for e in entries if e.kind == "middleware"),
            permissions=self.permissions(record),
            errors=self.errors.of(name),
            needs=needs(self._kernel, record),
            needed_by=needed_by(self._kernel, name),
        )

    def permissions(self, record: PluginRecord) -> Permissions:
        """Return what a plugin asks for and what it has."""
        asked = record.manifest.permissions
        loading, service = self._service("loading"), self._service("permissions")
        origin = loading.origin(record.name) if loading is not None else None
        isolated = (
            service is not None
            and isinstance(origin, Source)
            and service.confines(origin, asked, record.manifest.isolation)
        )
        return Permissions(
            asked=asked, granted=asked if isolated else _UNCONFINED, isolated=isolated
        )

    def _cpu(self) -> dict[str, float] | None:
        """Return the plugins' shares of the processor time; `None` if that is not measured."""
        ledger = self._service("ledger")
        return None if ledger is None else dict(ledger.shares().plugins)

    def _row(self, record: PluginRecord, cpu: dict[str, float] | None) -> PluginRow:
        info = info_of(self._kernel, record)
        health, metrics = self._service("health"), self._service("metrics")
        checked = None if health is None else health.check(record.name)
        measured = None if metrics is None else metrics.get(record.name)
        return PluginRow(
            name=info.name,
            version=info.version,
            description=info.description,
            type=info.type,
            state=state_of(record),
            core=record.core,
            loaded=info.loaded,
            active=info.active,
            enabled=self._enabled(record.name),
            loaded_at=info.loaded_at,
            load_duration=info.load_duration,
            error_count=info.error_count,
            errors=0 if checked is None else checked.recent_errors,
            error=None if record.error is None else masked_text(record.error),
            dependencies=info.dependencies,
            source=info.source,
            routes_off=info.routes_off,
            health=None if checked is None else checked.health,
            reasons=() if checked is None else checked.reasons,
            calls=None if measured is None else measured.calls,
            p50=None if measured is None else measured.p50,
            p95=None if measured is None else measured.p95,
            p99=None if measured is None else measured.p99,
            cpu=None if cpu is None or record.core else cpu.get(record.name, 0.0),
            blocked_seconds=self._blocked(record.name),
            permissions=record.manifest.permissions,
        )

    def _blocked(self, name: str) -> float | None:
        watchdog = self._service("watchdog")
        if watchdog is None:
            return None
        return float(sum(one.total for one in watchdog.blocks if one.plugin == name))

    def _enabled(self, name: str) -> bool:
        config = self._service("config")
        return config is None or not config.is_off(name)

    # -- lists

    def graph(self, *, core: bool = False) -> Graph:
        """Return the dependency graph."""
        return graph_of(self._kernel, core=core)

    def routes(self, *, core: bool = False) -> tuple[RouteRow, ...]:
        """Return the routes of all plugins."""
        return route_rows(self._kernel, (r for r in self._kernel.records() if core or not r.core))

    def events(self) -> tuple[EventRow, ...]:
        """Return the events."""
        return event_rows(self._kernel)

    def commands(self) -> tuple[CommandRow, ...]:
        """Return the commands that can be run now."""
        return command_rows(self._kernel.bus.live.registry.entries("command"))

    def health(self) -> tuple[HealthRow, ...]:
        """Return the health of each plugin of the application.

        Raises:
            StateError: The core plugin `health` is left out or switched off.
        """
        health = self._need("health")
        found = [health.check(r.name) for r in self._kernel.records() if not r.core]
        return tuple(
            HealthRow(
                name=one.name,
                health=one.health,
                loaded=one.loaded,
                active=one.active,
                error_count=one.error_count,
                recent_errors=one.recent_errors,
                uptime=one.uptime,
                reasons=one.reasons,
                routes_off=tuple(
                    OutageRow(route=off.route, reason=off.reason, until=off.until)
                    for off in one.routes_off
                ),
            )
            for one in found
        )

    def ledger(self) -> Usage:
        """Return who used the processor, waited, blocked the event loop and holds memory.

        Raises:
            StateError: The ledger is off.
        """
        ledger = self._service("ledger")
        if ledger is None:
            raise StateError("the ledger is off", remedy="Set the option ledger = true.")
        found: Usage = ledger.report()
        return found

    def startup(self, *, core: bool = False) -> tuple[StartupStep, ...]:
        """Return when each plugin was loaded."""
        return startup_of(self._kernel, core=core)

    def backups(self) -> tuple[BackupRow, ...]:
        """Return the backups in the default folder, the newest first."""
        folder = self._need("backup").folder
        found = []
        for path in folder.glob("*.jsonl") if folder.is_dir() else ():
            stat = path.stat()
            made = datetime.fromtimestamp(stat.st_mtime, UTC)
            found.append(BackupRow(name=path.name, path=str(path), size=stat.st_size, made_at=made))
        return tuple(sorted(found, key=lambda row: (row.made_at, row.name), reverse=True))

    # -- what happened

    async def traces(self, *, limit: int = 50, failed: bool = False) -> tuple[TraceRow, ...]:
        """Return the last traces, the newest first.

        Args:
            limit: How many at most.
            failed: Only those in which something failed.

        Raises:
            StateError: No traces are kept.
        """
        documents = await self._traces(0 if failed else limit)
        rows = (trace_row(document) for document in documents if document["spans"])
        return tuple(row for row in rows if row.failed or not failed)[:limit]

    async def trace(self, id: str) -> Trace:
        """Return one trace with its spans.

        Raises:
            NotFoundError: It is not kept.
            StateError: No traces are kept.
        """
        for document in await self._traces(0):
            if document["traceID"] == id and document["spans"]:
                return trace_of(document)
        raise NotFoundError(
            f"there is no trace {id!r}", remedy="The last traces are kept, older ones are not."
        )

    async def _traces(self, limit: int) -> list[dict[str, Any]]:
        tracing = self._service("tracing")
        remedy = "Write [plugins.tracing] with keep = 100 into veko.toml and start again."
        if tracing is None:
            raise StateError("tracing is off", remedy=remedy)
        try:
            found: list[dict[str, Any]] = await tracing.traces(limit)
        except OptionError as error:
            raise StateError("no traces are kept", remedy=remedy) from error
        return found

    def log(
        self,
        *,
        after: int = 0,
        level: str | None = None,
        plugin: str | None = None,
        limit: int = 200,
    ) -> tuple[LogRow, ...]:
        """Return the last log records; see `Logs.rows`.

        Raises:
            OptionError: There is no such level.
        """
        if level is not None and level not in LEVELS:
            raise OptionError(
                f"{level!r} is not a log level", remedy=f"Use one of {', '.join(LEVELS)}."
            )
        return self.logs.rows(after=after, level=level, plugin=plugin, limit=limit)

    # -- parts of the above

    def _service(self, name: str) -> Any:
        return plugin_service(self._kernel, name)

    def _need(self, name: str) -> Any:
        found = self._service(name)
        if found is None:
            raise StateError(
                f"the core plugin {name!r} is left out or switched off",
                remedy=f"Take {name} out of the option `core`, or switch it on.",
            )
        return found

    def _report(self) -> LoadReport:
        loading = self._service("loading")
        found: LoadReport = LoadReport() if loading is None else loading.report
        return found

    def _unknown(self, name: str) -> NotFoundError:
        known = [row.name for row in self.plugins()]
        return NotFoundError(
            f"there is no plugin {name!r}",
            plugin=name,
            remedy=did_you_mean(name, known) or f"There are: {', '.join(sorted(known)) or 'none'}.",
        )


def _absent(name: str, state: str, why: str, *, enabled: bool = True) -> PluginRow:
    return PluginRow(name=name, state=state, error=why, enabled=enabled)

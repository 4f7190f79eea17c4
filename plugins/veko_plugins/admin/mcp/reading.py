"""The tools that change nothing: all that the role `look` gets."""

from __future__ import annotations

import functools
from typing import Any, Final

import anyio.to_thread

from veko import NotFoundError

from ..manual import manual
from .arguments import (
    Arguments,
    ListChanges,
    ListErrors,
    ListEvents,
    ListPlugins,
    ListRoutes,
    ListTraces,
    OfPlugin,
    ReadConfig,
    ReadDocs,
    ReadLogs,
    SearchDocs,
    ShowTrace,
    parts_of,
)
from .tools import READS, Tool
from .verbs import Failed, Verbs

__all__ = ["READING"]

_ASKED: Final = 20  # plugins whose errors one call collects
_KEPT: Final = ("name", "version", "state", "health")
_HIDDEN: Final = frozenset({*_KEPT, "loaded", "active", "type", "loaded_at", "load_duration"})


async def _status(verbs: Verbs, _: Arguments) -> object:
    return await verbs.ask("GET", "status")


async def _plugins(verbs: Verbs, asked: ListPlugins) -> object:
    rows = [
        row
        for row in await verbs.ask("GET", "plugins", query={"core": int(asked.core)})
        if asked.contains in row["name"] and (not asked.problems or _troubled(row))
    ]
    return {"total": len(rows), "plugins": [_short(row) for row in rows[: asked.limit]]}


def _troubled(row: dict[str, Any]) -> bool:
    return (
        row["health"] in ("warning", "critical")
        or bool(row["errors"] or row["error"] or row["routes_off"])
        or not row["active"]
    )


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what says nothing: a list of 200 plugins should fit into a context."""
    return {key: row[key] for key in _KEPT} | {
        key: value
        for key, value in row.items()
        if key not in _HIDDEN and (value or (key == "enabled" and not value))
        if not (key == "enabled" and value)
    }


async def _plugin(verbs: Verbs, asked: OfPlugin) -> object:
    return await verbs.ask("GET", "plugins", asked.plugin)


async def _errors(verbs: Verbs, asked: ListErrors) -> object:
    if asked.plugin is not None:
        details = await verbs.ask("GET", "plugins", asked.plugin)
        failed, errors = [details["plugin"]], list(details["errors"])
    else:
        rows = await verbs.ask("GET", "plugins", query={"core": 1})
        failed = [row for row in rows if row["error_count"] or row["error"]]
        failed.sort(key=lambda row: (-row["errors"], -row["error_count"]))
        errors = []
        for row in [row for row in failed if row["error_count"]][:_ASKED]:
            errors += (await verbs.ask("GET", "plugins", row["name"]))["errors"]
        errors.sort(key=lambda error: error["time"], reverse=True)
    return {
        "not_loaded": {row["name"]: row["error"] for row in failed if row["error"]},
        "counts": {row["name"]: row["error_count"] for row in failed if row["error_count"]},
        "errors": errors[: asked.limit],
    }


async def _graph(verbs: Verbs, _: Arguments) -> object:
    return await verbs.ask("GET", "graph")


async def _routes(verbs: Verbs, asked: ListRoutes) -> object:
    rows = [
        row
        for row in await verbs.ask("GET", "routes")
        if asked.contains in row["path"] and asked.plugin in (None, row["plugin"])
    ]
    return {"total": len(rows), "routes": rows[: asked.limit]}


async def _events(verbs: Verbs, asked: ListEvents) -> object:
    rows = [
        row
        for row in await verbs.ask("GET", "events")
        if asked.contains in row["name"] and (row["hooks"] or not asked.hooked)
    ]
    return {"total": len(rows), "events": rows[: asked.limit]}


async def _health(verbs: Verbs, _: Arguments) -> object:
    return {"plugins": await verbs.ask("GET", "health")}


async def _commands(verbs: Verbs, _: Arguments) -> object:
    return {"commands": await verbs.ask("GET", "commands")}


async def _startup(verbs: Verbs, _: Arguments) -> object:
    return {"steps": await verbs.ask("GET", "startup")}


async def _backups(verbs: Verbs, _: Arguments) -> object:
    return {"backups": await verbs.ask("GET", "backups")}


async def _traces(verbs: Verbs, asked: ListTraces) -> object:
    query = {"limit": asked.limit, "failed": int(asked.failed)}
    return {"traces": await verbs.ask("GET", "traces", query=query)}


async def _trace(verbs: Verbs, asked: ShowTrace) -> object:
    return await verbs.ask("GET", "traces", asked.id)


async def _logs(verbs: Verbs, asked: ReadLogs) -> object:
    query = {
        "after": asked.after,
        "level": asked.level,
        "plugin": asked.plugin,
        "limit": asked.limit,
    }
    return {"records": await verbs.ask("GET", "logs", query=query)}


async def _changes(verbs: Verbs, asked: ListChanges) -> object:
    found = sorted(await verbs.ask("GET", "changes"), key=lambda one: one["at"], reverse=True)
    return {"total": len(found), "changes": found[: asked.limit]}


async def _config(verbs: Verbs, asked: ReadConfig) -> object:
    details = await verbs.ask("GET", "plugins", asked.plugin)
    value = await verbs.ask("GET", "plugins", asked.plugin, "config", *parts_of(asked.path))
    return {"value": value, "etag": details["config_etag"]}


async def _search(_: Verbs, asked: SearchDocs) -> object:
    search = functools.partial(manual().search, asked.query, asked.limit)
    return {"sections": await anyio.to_thread.run_sync(search)}


async def _read(_: Verbs, asked: ReadDocs) -> object:
    try:
        text = await anyio.to_thread.run_sync(manual().read, asked.page, asked.heading)
    except NotFoundError as error:
        raise Failed({"status": 404, "detail": error.message, "remedy": error.remedy}) from error
    return {"page": asked.page, "markdown": text}


READING: Final = (
    Tool(
        "status",
        "Status",
        "Show the application: version, uptime, how many plugins are on, and how many are in "
        "trouble. Begin here.",
        Arguments,
        _status,
        READS,
    ),
    Tool(
        "list_plugins",
        "List plugins",
        "List plugins with their state, health, failures and latency (seconds). With "
        "problems=true only those that need attention. Fields that say nothing are left out.",
        ListPlugins,
        _plugins,
        READS,
    ),
    Tool(
        "show_plugin",
        "Show a plugin",
        "Show everything about one plugin: state and health with reasons, manifest, "
        "configuration (secrets hidden) and its schema, hooks with their latency, routes, "
        "commands, services, permissions, and its last failures with tracebacks.",
        OfPlugin,
        _plugin,
        READS,
    ),
    Tool(
        "list_errors",
        "List errors",
        "List the last failures of plugins' code, the newest first, with class, message, file, "
        "line and traceback, and why plugins did not load.",
        ListErrors,
        _errors,
        READS,
    ),
    Tool(
        "check_health",
        "Check health",
        "Show the health of every plugin with the reasons, and the routes that are off because "
        "they failed too often.",
        Arguments,
        _health,
        READS,
    ),
    Tool(
        "list_routes",
        "List routes",
        "List HTTP routes: the plugin of each, whether it is on, how often it failed and how "
        "long it takes (seconds).",
        ListRoutes,
        _routes,
        READS,
    ),
    Tool(
        "list_events",
        "List events",
        "List the events that are emitted, what each means and how many handlers it has.",
        ListEvents,
        _events,
        READS,
    ),
    Tool(
        "list_commands",
        "List commands",
        "List the commands of plugins. Each is also a tool, named command_ and its name.",
        Arguments,
        _commands,
        READS,
    ),
    Tool(
        "show_graph",
        "Show the dependency graph",
        "Show which plugin needs which, by its manifest or by using a service; plugins that are "
        "needed but not there have the state missing.",
        Arguments,
        _graph,
        READS,
    ),
    Tool(
        "show_startup",
        "Show the start",
        "Show when each plugin was loaded, how long it took and what it waited for (seconds).",
        Arguments,
        _startup,
        READS,
    ),
    Tool(
        "list_traces",
        "List traces",
        "List the last requests: status, duration (seconds), and the plugins whose code ran. "
        "Needs tracing, which [plugins.tracing] with keep in the settings switches on.",
        ListTraces,
        _traces,
        READS,
    ),
    Tool(
        "show_trace",
        "Show a trace",
        "Show one request with every hook and handler that ran in it, and how long each took.",
        ShowTrace,
        _trace,
        READS,
    ),
    Tool(
        "read_logs",
        "Read logs",
        "Read the last log records, by level and by plugin. Give the greatest id you got as "
        "after to get only what is new.",
        ReadLogs,
        _logs,
        READS,
    ),
    Tool(
        "list_changes",
        "List changes",
        "List what operators changed, the newest first: who, when, what, and whether undo takes "
        "it back.",
        ListChanges,
        _changes,
        READS,
    ),
    Tool(
        "list_backups",
        "List backups",
        "List the backups of state and storage.",
        Arguments,
        _backups,
        READS,
    ),
    Tool(
        "read_config",
        "Read a configuration",
        "Read a plugin's configuration, or a part of it, and its etag. Secrets are hidden.",
        ReadConfig,
        _config,
        READS,
    ),
    Tool(
        "search_docs",
        "Search the docs",
        "Search Veko's documentation; returns sections, to be read with read_docs.",
        SearchDocs,
        _search,
        READS,
    ),
    Tool(
        "read_docs",
        "Read the docs",
        "Read a page of Veko's documentation, or one section of it, as Markdown.",
        ReadDocs,
        _read,
        READS,
    ),
)

"""The endpoints that only look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from ..reports import Usage
from .documents import (
    BackupRow,
    CommandRow,
    EventRow,
    Graph,
    HealthRow,
    LogRow,
    PluginDetails,
    PluginRow,
    RouteRow,
    StartupStep,
    Status,
    Trace,
    TraceRow,
)
from .endpoints import Endpoint, Given, Parameter
from .exchange import Answer, Asked
from .feed import TOPICS

if TYPE_CHECKING:
    from .operations import Operations

__all__ = ["READING"]

_CORE: Final = Parameter("core", bool, False, "Show Veko's own plugins, too.")
_Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
_Level = Literal["debug", "info", "success", "warning", "error", "critical"]


async def _status(of: Operations, asked: Asked, _: Given) -> object:
    return of.status(asked.caller.role)


async def _plugins(of: Operations, _: Asked, given: Given) -> object:
    return of.plugins(core=given["core"])


async def _plugin(of: Operations, _: Asked, given: Given) -> object:
    return of.plugin(given["name"])


async def _graph(of: Operations, _: Asked, given: Given) -> object:
    return of.graph(core=given["core"])


async def _routes(of: Operations, _: Asked, given: Given) -> object:
    return of.routes(core=given["core"])


async def _events(of: Operations, _: Asked, __: Given) -> object:
    return of.events()


async def _health(of: Operations, _: Asked, __: Given) -> object:
    return of.health()


async def _ledger(of: Operations, _: Asked, __: Given) -> object:
    return of.ledger()


async def _commands(of: Operations, _: Asked, __: Given) -> object:
    return of.commands()


async def _startup(of: Operations, _: Asked, given: Given) -> object:
    return of.startup(core=given["core"])


async def _backups(of: Operations, _: Asked, __: Given) -> object:
    return of.backups()


async def _traces(of: Operations, _: Asked, given: Given) -> object:
    return await of.traces(limit=given["limit"], failed=given["failed"])


async def _trace(of: Operations, _: Asked, given: Given) -> object:
    return await of.trace(given["id"])


async def _stream(of: Operations, asked: Asked, given: Given) -> object:
    after = asked.headers.get("last-event-id") or given["after"]
    chunks = await of.feed.stream(
        given["topics"], plugin=given["plugin"], level=given["level"], after=after
    )
    return Answer.streamed(chunks)


async def _logs(of: Operations, _: Asked, given: Given) -> object:
    return of.log(
        after=given["after"], level=given["level"], plugin=given["plugin"], limit=given["limit"]
    )


READING: Final = (
    Endpoint(
        method="GET",
        path="status",
        name="status",
        handler=_status,
        answer=Status,
        doc="The application as a whole.",
    ),
    Endpoint(
        method="GET",
        path="plugins",
        name="plugins",
        handler=_plugins,
        answer=tuple[PluginRow, ...],
        doc="All plugins, also those that are off or did not load.",
        parameters=(_CORE,),
    ),
    Endpoint(
        method="GET",
        path="plugins/{name}",
        name="plugin",
        handler=_plugin,
        answer=PluginDetails,
        doc="Everything about one plugin.",
        refusals=(404,),
    ),
    Endpoint(
        method="GET",
        path="graph",
        name="graph",
        handler=_graph,
        answer=Graph,
        doc="The dependency graph.",
        parameters=(_CORE,),
    ),
    Endpoint(
        method="GET",
        path="routes",
        name="routes",
        handler=_routes,
        answer=tuple[RouteRow, ...],
        doc="The routes of all plugins.",
        parameters=(_CORE,),
    ),
    Endpoint(
        method="GET",
        path="events",
        name="events",
        handler=_events,
        answer=tuple[EventRow, ...],
        doc="The events, declared or hooked.",
    ),
    Endpoint(
        method="GET",
        path="health",
        name="health",
        handler=_health,
        answer=tuple[HealthRow, ...],
        doc="The health of each plugin, with the reasons.",
        refusals=(409,),
    ),
    Endpoint(
        method="GET",
        path="ledger",
        name="ledger",
        handler=_ledger,
        answer=Usage,
        doc="Processor time, waiting, blocking and memory by plugin and by route.",
        refusals=(409,),
    ),
    Endpoint(
        method="GET",
        path="commands",
        name="commands",
        handler=_commands,
        answer=tuple[CommandRow, ...],
        doc="The commands that can be run now.",
    ),
    Endpoint(
        method="GET",
        path="startup",
        name="startup",
        handler=_startup,
        answer=tuple[StartupStep, ...],
        doc="When each plugin was loaded, and what it waited for.",
        parameters=(_CORE,),
    ),
    Endpoint(
        method="GET",
        path="backups",
        name="backups",
        handler=_backups,
        answer=tuple[BackupRow, ...],
        doc="The backups, the newest first.",
        refusals=(409,),
    ),
    Endpoint(
        method="GET",
        path="traces",
        name="traces",
        handler=_traces,
        answer=tuple[TraceRow, ...],
        doc="The last traces, the newest first.",
        parameters=(
            Parameter("limit", _Limit, 50, "How many at most."),
            Parameter("failed", bool, False, "Only those in which something failed."),
        ),
        refusals=(409,),
    ),
    Endpoint(
        method="GET",
        path="traces/{id}",
        name="trace",
        handler=_trace,
        answer=Trace,
        doc="One trace with its spans.",
        refusals=(404, 409),
    ),
    Endpoint(
        method="GET",
        path="stream",
        name="stream",
        handler=_stream,
        answer=None,
        media_type="text/event-stream",
        doc="What happens, as server-sent events, until the client leaves.",
        parameters=(
            Parameter("topics", str, "", f"Joined by commas, of: {', '.join(TOPICS)}."),
            Parameter("plugin", str | None, None, "Only what is about this plugin, or none."),
            Parameter("level", _Level | None, None, "Only log records of this level or above."),
            Parameter("after", str | None, None, "The id of the last message that one has."),
        ),
        refusals=(503,),
    ),
    Endpoint(
        method="GET",
        path="logs",
        name="logs",
        handler=_logs,
        answer=tuple[LogRow, ...],
        doc="The last log records, in their order.",
        parameters=(
            Parameter(
                "after",
                Annotated[int, msgspec.Meta(ge=0)],
                0,
                "Only records with a higher id.",
            ),
            Parameter("level", _Level | None, None, "Only records of this level or above."),
            Parameter("plugin", str | None, None, "Only records about this plugin."),
            Parameter("limit", _Limit, 200, "How many at most, the newest."),
        ),
    ),
)

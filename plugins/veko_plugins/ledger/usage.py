"""What the ledger reports: frozen snapshots, ready for JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from .budgets import Budget

__all__ = ["PluginUsage", "RouteUsage", "Shares", "Usage"]


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


class Shares(NamedTuple):
    """The parts of the process's processor time, from 0 to 1.

    Attributes:
        plugins: By plugin.
        routes: By the plugin and the name of a route, as `GET /x`.
    """

    plugins: dict[str, float]
    routes: dict[tuple[str, str], float]


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

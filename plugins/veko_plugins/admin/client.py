"""AdminClient: the management API of a running application, typed.

It needs nothing beside the standard library and msgspec, so the command line has it without an HTTP
library. Each call opens a connection of its own: calls are few, and a server that has restarted
meanwhile is no special case.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from .._lib.control_files import live_sockets
from ..reports import Usage
from .documents import (
    BackupRow,
    Change,
    CommandAnswer,
    CommandRow,
    ConfigView,
    EventRow,
    Graph,
    HealthRow,
    LogRow,
    Plan,
    PluginDetails,
    PluginRow,
    RouteRow,
    StartupStep,
    Status,
    StreamEvent,
    Trace,
    TraceRow,
)
from .exchange import CHANGE, RELAYED
from .intents import Configure, Intent, Load, Reload, Restore, Toggle, Undo, Unload
from .transport import Transport, nobody
from .wire import events_of, read_body, read_stream

__all__ = ["AdminClient"]

_BODY: Final = 256 * 2**20


class AdminClient(Transport):
    """A client of the management API.

    Its methods are named as those of the service `admin`, and return the same documents.

    Args:
        url: Where the application listens: `http://127.0.0.1:8000`.
        token: The token.
        sockets: Control sockets to use instead; the first that answers is used.
        timeout: Seconds that an answer may take.

    Raises:
        OptionError: The URL is not one of HTTP.
    """

    @classmethod
    def local(cls, directory: Path | str = ".", *, timeout: float = 120.0) -> AdminClient:
        """Return a client of the application that serves from a directory on this machine.

        Args:
            directory: The application's directory.
            timeout: Seconds that an answer may take.

        Raises:
            NotFoundError: No application serves from there.
        """
        found = tuple(live_sockets(Path(directory)).values())
        if not found:
            raise nobody(Path(directory))
        return cls(sockets=found, timeout=timeout)

    # -- looking

    async def status(self) -> Status:
        """Return the state of the application."""
        return await self._get("status", Status)

    async def plugins(self, *, core: bool = False) -> tuple[PluginRow, ...]:
        """Return the plugins."""
        return await self._get("plugins", tuple[PluginRow, ...], core=core)

    async def plugin(self, name: str) -> PluginDetails:
        """Return everything about one plugin."""
        return await self._get(f"plugins/{_quoted(name)}", PluginDetails)

    async def graph(self, *, core: bool = False) -> Graph:
        """Return the dependency graph."""
        return await self._get("graph", Graph, core=core)

    async def routes(self, *, core: bool = False) -> tuple[RouteRow, ...]:
        """Return the routes."""
        return await self._get("routes", tuple[RouteRow, ...], core=core)

    async def events(self) -> tuple[EventRow, ...]:
        """Return the events."""
        return await self._get("events", tuple[EventRow, ...])

    async def health(self) -> tuple[HealthRow, ...]:
        """Return the health of each plugin."""
        return await self._get("health", tuple[HealthRow, ...])

    async def ledger(self) -> Usage:
        """Return processor time, waiting, blocking and memory by plugin and by route."""
        return await self._get("ledger", Usage)

    async def commands(self) -> tuple[CommandRow, ...]:
        """Return the commands that can be run."""
        return await self._get("commands", tuple[CommandRow, ...])

    async def startup(self, *, core: bool = False) -> tuple[StartupStep, ...]:
        """Return when each plugin was loaded."""
        return await self._get("startup", tuple[StartupStep, ...], core=core)

    async def backups(self) -> tuple[BackupRow, ...]:
        """Return the backups."""
        return await self._get("backups", tuple[BackupRow, ...])

    async def traces(self, *, limit: int = 50, failed: bool = False) -> tuple[TraceRow, ...]:
        """Return the last traces."""
        return await self._get("traces", tuple[TraceRow, ...], limit=limit, failed=failed)

    async def trace(self, id: str) -> Trace:
        """Return one trace."""
        return await self._get(f"traces/{_quoted(id)}", Trace)

    async def log(
        self,
        *,
        after: int = 0,
        level: str | None = None,
        plugin: str | None = None,
        limit: int = 200,
    ) -> tuple[LogRow, ...]:
        """Return the last log records."""
        return await self._get(
            "logs", tuple[LogRow, ...], after=after, level=level, plugin=plugin, limit=limit
        )

    async def config(self, name: str, path: Sequence[str] = ()) -> ConfigView:
        """Return a plugin's configuration, or the part of it at a path, and its version."""
        body, headers = await self.request("GET", _config_path(name, path))
        return ConfigView(value=msgspec.json.decode(body), etag=headers.get("etag", ""))

    async def stream(
        self,
        *topics: str,
        plugin: str | None = None,
        level: str | None = None,
        after: str | None = None,
    ) -> AsyncIterator[StreamEvent]:
        """Yield what happens, until the application stops or the caller does.

        Args:
            topics: The topics; all by default.
            plugin: Only what is about this plugin, or about none.
            level: Only log records of this level or above.
            after: The id of the last message that one has.

        Raises:
            AdminError: It was refused.
            StateError: The application cannot be reached.
        """
        query = {"topics": ",".join(topics), "plugin": plugin, "level": level, "after": after}
        accept = {"accept": "text/event-stream"}
        asked = self._asked("GET", "stream", query, msgspec.UNSET, accept)
        async with asked as (head, reader):
            if head.first[1] != "200":
                self._check(head, await read_body(reader, head.headers, _BODY, to_end=True))
            async for event in events_of(read_stream(reader, head.headers)):
                yield event

    async def changes(self) -> tuple[Change, ...]:
        """Return the changes that were done."""
        return await self._get("changes", tuple[Change, ...])

    # -- changing

    async def plan(self, intent: Intent) -> Plan:
        """Return what a change would do; nothing is done."""
        body, _ = await self.request("POST", "changes", query={"plan": True}, body=intent)
        return msgspec.json.decode(body, type=Plan)

    async def apply(self, intent: Intent) -> Change:
        """Do a change."""
        body, _ = await self.request("POST", "changes", body=intent)
        return msgspec.json.decode(body, type=Change)

    async def load(self, plugin: str, config: Mapping[str, Any] | None = None) -> Change:
        """Load a plugin."""
        return await self.apply(Load(plugin, dict(config or {})))

    async def unload(self, plugin: str, *, cascade: bool = False) -> Change:
        """Unload a plugin."""
        return await self.apply(Unload(plugin, cascade))

    async def toggle(
        self, plugin: str, active: bool | None = None, *, cascade: bool = False
    ) -> Change:
        """Switch a plugin on or off."""
        return await self.apply(Toggle(plugin, active, cascade))

    async def reload(self, plugin: str) -> Change:
        """Reload a plugin."""
        return await self.apply(Reload(plugin))

    async def configure(
        self,
        plugin: str,
        value: object = None,
        path: Sequence[str] = (),
        *,
        how: Literal["put", "patch", "delete"] = "patch",
        etag: str | None = None,
        reload: bool = False,
    ) -> Change:
        """Change the configuration of a plugin; see `intents.Configure`."""
        return await self.apply(Configure(plugin, tuple(path), how, value, etag, reload))

    async def backup(self) -> BackupRow:
        """Make a backup."""
        body, _ = await self.request("POST", "backups")
        return msgspec.json.decode(body, type=BackupRow)

    async def restore(self, backup: str) -> Change:
        """Restore a backup."""
        return await self.apply(Restore(backup))

    async def undo(self, change: str) -> Change:
        """Take a change back."""
        return await self.apply(Undo(change))

    async def run(
        self, name: str, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None
    ) -> CommandAnswer:
        """Run a plugin's command."""
        given = {"args": list(args), "kwargs": dict(kwargs or {})}
        body, _ = await self.request("POST", f"commands/{_quoted(name)}", body=given)
        return msgspec.json.decode(body, type=CommandAnswer)

    async def invoke(self, name: str, words: Sequence[str]) -> CommandAnswer:
        """Run a plugin's command with the words of a command line."""
        body, _ = await self.request(
            "POST", f"commands/{_quoted(name)}", body={"words": list(words)}
        )
        return msgspec.json.decode(body, type=CommandAnswer)

    async def relay(
        self, intent: Intent, *, plan: bool = False, id: str = "", who: str = ""
    ) -> None:
        """Ask another worker for its part of a change."""
        headers = {RELAYED: who.encode("ascii", "replace").decode() or "a worker", CHANGE: id}
        query = {"plan": True} if plan else {}
        await self.request("POST", "changes", query=query, body=intent, headers=headers)


def _config_path(name: str, path: Sequence[str]) -> str:
    steps = [_quoted(step.replace("~", "~0").replace("/", "~1")) for step in path]
    return "/".join([f"plugins/{_quoted(name)}/config", *steps])


def _quoted(segment: str) -> str:
    return quote(segment, safe="")

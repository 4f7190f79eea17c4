"""AdminClient: the management API of a running application, typed.

It needs nothing beside the standard library and msgspec, so the command line has it without an HTTP
library. Each call opens a connection of its own: calls are few, and a server that has restarted
meanwhile is no special case.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from veko import NotFoundError, OptionError, StateError

from .._lib.control_files import address_of, live_sockets
from .documents import (
    BackupRow,
    Change,
    CommandAnswer,
    CommandRow,
    ConfigView,
    EventRow,
    Graph,
    HealthRow,
    Ledger,
    LogRow,
    Plan,
    PluginDetails,
    PluginRow,
    Problem,
    RouteRow,
    StartupStep,
    Status,
    StreamEvent,
    Trace,
    TraceRow,
)
from .errors import AdminError
from .exchange import CHANGE, JSON, PREFIX, RELAYED
from .intents import Configure, Intent, Load, Reload, Restore, Toggle, Undo, Unload
from .wire import Head, events_of, head_of, read_body, read_head, read_stream

__all__ = ["AdminClient"]

_T = TypeVar("_T")
_BODY: Final = 256 * 2**20
_LIMIT: Final = 2**20


class AdminClient:
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

    def __init__(
        self,
        url: str = "",
        *,
        token: str | None = None,
        sockets: Sequence[Path] = (),
        timeout: float = 120.0,
    ) -> None:
        self._sockets = tuple(sockets)
        self._token = token
        self._timeout = timeout
        parts = urlsplit(url)
        if not self._sockets and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise OptionError(
                f"{url!r} is not the URL of an application", remedy="Give http://host:port."
            )
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._netloc = parts.netloc.rpartition("@")[2] or "localhost"
        self._prefix = parts.path.rstrip("/") + PREFIX

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
            raise _nobody(Path(directory))
        return cls(sockets=found, timeout=timeout)

    @property
    def shown(self) -> str:
        """What this client talks to, for a message."""
        return str(self._sockets[0]) if self._sockets else f"{self._host}:{self._port}"

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

    async def ledger(self) -> Ledger:
        """Return processor time, waiting, blocking and memory by plugin and by route."""
        return await self._get("ledger", Ledger)

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

    # -- asking

    async def _get(self, path: str, type_: type[_T], **query: object) -> _T:
        body, _ = await self.request("GET", path, query=query)
        return msgspec.json.decode(body, type=type_)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = msgspec.UNSET,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, dict[str, str]]:
        """Ask, and return the body and the headers of the answer.

        Args:
            method: The method.
            path: The path below the prefix, percent-encoded.
            query: The query parameters; those that are `None` are left out.
            body: What to send as JSON.
            headers: More headers.

        Raises:
            AdminError: It was refused; `status` is the status of the answer.
            StateError: The application cannot be reached, or does not answer in time.
        """
        try:
            async with asyncio.timeout(self._timeout):
                async with self._asked(method, path, query, body, headers) as (head, reader):
                    data = await read_body(reader, head.headers, _BODY, to_end=True)
        except TimeoutError:
            raise StateError(
                f"{self.shown} did not answer within {self._timeout:g} s",
                remedy="Its event loop may be blocked; `veko doctor` says by what.",
            ) from None
        self._check(head, data)
        return data, head.headers

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        body: object,
        headers: Mapping[str, str] | None,
    ) -> AsyncIterator[tuple[Head, asyncio.StreamReader]]:
        """Send a request; yield the head of the answer and the stream of its body."""
        given = {key: _text(value) for key, value in (query or {}).items() if value is not None}
        target = f"{self._prefix}/{path}{'?' + urlencode(given) if given else ''}"
        sent = {"host": self._netloc, "connection": "close", "accept": JSON, **(headers or {})}
        if self._token is not None:
            sent["authorization"] = f"Bearer {self._token}"
        data = b""
        if body is not msgspec.UNSET:
            data = msgspec.json.encode(body)
            sent["content-type"] = JSON
        if data or method != "GET":
            sent["content-length"] = str(len(data))
        reader, writer = await self._connect()
        try:
            writer.write(head_of(f"{method} {target} HTTP/1.1", sent) + data)
            await writer.drain()
            head = await read_head(reader)
            if head is None:
                raise ConnectionResetError("the connection ended before the answer")
            yield head, reader
        except OSError as error:
            raise self._unreachable(error) from error
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self._sockets:
            try:
                return await asyncio.open_connection(
                    self._host,
                    self._port,
                    ssl=ssl.create_default_context() if self._secure else None,
                    limit=_LIMIT,
                )
            except OSError as error:
                raise self._unreachable(error) from error
        last: OSError | None = None
        for path in self._sockets:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.setblocking(False)
                with address_of(path) as address:
                    await asyncio.get_running_loop().sock_connect(connection, address)
                return await asyncio.open_unix_connection(sock=connection, limit=_LIMIT)
            except OSError as error:  # a process that was killed leaves its socket
                connection.close()
                last = error
        raise _nobody(self._sockets[0].parents[2]) from last

    def _unreachable(self, error: OSError) -> StateError:
        return StateError(
            f"{self.shown} cannot be reached: {error.strerror or error}",
            remedy="Start the application with `veko serve`, or give its URL.",
        )

    @staticmethod
    def _check(head: Head, data: bytes) -> None:
        status = int(head.first[1]) if head.first[1].isdecimal() else 0
        if 200 <= status < 300:
            return
        try:
            problem = msgspec.json.decode(data, type=Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise AdminError(
                status or 502,
                f"the answer is {status} {head.first[2]}",
                remedy="Is the option enable_api set, and is the URL that of the application?",
            ) from None
        raise AdminError(
            problem.status,
            problem.detail or problem.title,
            remedy=problem.remedy,
            plugin=problem.plugin,
            faults=problem.faults,
            exit_code=problem.exit_code,
        )


def _config_path(name: str, path: Sequence[str]) -> str:
    steps = [_quoted(step.replace("~", "~0").replace("/", "~1")) for step in path]
    return "/".join([f"plugins/{_quoted(name)}/config", *steps])


def _quoted(segment: str) -> str:
    return quote(segment, safe="")


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _nobody(directory: Path) -> NotFoundError:
    return NotFoundError(
        f"no application serves from {directory}", remedy="Start it with `veko serve`."
    )

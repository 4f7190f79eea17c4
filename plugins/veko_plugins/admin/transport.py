"""How a client reaches the management API: over HTTP, or over control sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from veko import NotFoundError, OptionError, StateError

from .._lib.control_files import address_of
from .documents import (
    Problem,
)
from .errors import AdminError
from .exchange import JSON, PREFIX
from .wire import Head, head_of, read_body, read_head

__all__ = ["Transport", "nobody"]

_T = TypeVar("_T")
_BODY: Final = 256 * 2**20
_LIMIT: Final = 2**20


class Transport:
    """Asks an application; see `AdminClient`."""

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

    @property
    def shown(self) -> str:
        """What this client talks to, for a message."""
        return str(self._sockets[0]) if self._sockets else f"{self._host}:{self._port}"

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
        raise nobody(self._sockets[0].parents[2]) from last

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


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def nobody(directory: Path) -> NotFoundError:
    return NotFoundError(
        f"no application serves from {directory}", remedy="Start it with `veko serve`."
    )

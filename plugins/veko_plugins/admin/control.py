"""The control socket: the management API for this user's own programs, without a token.

`veko serve` opens `.veko/control/<pid>.sock` in the application's directory, one for each worker.
The folder and the socket are their user's alone, and on Linux the kernel says who is at the other
end. What answers is loaded at the first connection.

Cost: a socket that is bound and listens; nothing until somebody connects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol

from veko import VekoError

from .._lib.control_files import address_of, answers, control_folder, made_folder, peer_of
from .access import Caller
from .errors import AdminError
from .exchange import PREFIX, Answer, Asked, query_of, segments_of
from .wire import Head, chunk, head_of, read_body, read_head

__all__ = ["ControlSocket"]

_log: Final = logging.getLogger("veko.admin")
_BODY: Final = 1024 * 1024
_MOST: Final = 64
"""Connections at once."""
_IDLE: Final = 60.0
_STUCK: Final = 30.0
"""Seconds for which the other end may take nothing of an answer."""


class Answering(Protocol):
    """What answers: `API`."""

    async def answer(self, asked: Asked, /) -> Answer: ...


class ControlSocket:
    """A control socket, from `open()` to `close()`.

    Where sockets of this kind do not exist, or the folder is not this user's, it warns and does
    nothing: an application serves without it.

    Args:
        directory: The application's directory.
        find: Returns what answers; called for each request, since a restart changes it.
    """

    def __init__(self, directory: Path, find: Callable[[], Awaitable[Answering]]) -> None:
        self._directory = directory
        self._find = find
        self._path: Path | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def path(self) -> Path | None:
        """The socket's file; `None` if there is none."""
        return self._path

    async def open(self) -> None:
        """Bind and listen."""
        if not hasattr(socket, "AF_UNIX") or not hasattr(os, "geteuid"):
            return
        try:
            listener, path = self._bind()
        except (OSError, VekoError) as error:
            _log.warning("there is no control socket: %s", error)
            return
        self._path = path
        self._server = await asyncio.start_unix_server(self._connected, sock=listener)

    async def close(self) -> None:
        """Remove the socket, and end the connections."""
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))
        self._server = self._path = None

    def _bind(self) -> tuple[socket.socket, Path]:
        folder = made_folder(self._directory)
        _remove_stale(self._directory)
        path = folder / f"{os.getpid()}.sock"
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address_of(draft) as address:
                listener.bind(address)
            draft.chmod(0o600)
            listener.listen(_MOST)
            listener.setblocking(False)
            # It gets its name when it listens: another worker would take it for a stale one.
            draft.rename(path)
        except BaseException:
            listener.close()
            raise
        return listener, path

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= _MOST:
            writer.close()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            caller = _caller_of(writer)
            while caller is not None and await self._turn(reader, writer, caller):
                pass
        except (OSError, TimeoutError):
            pass  # the other end is gone, or has stopped reading
        except AdminError as error:  # what it sent is not HTTP
            with contextlib.suppress(OSError, TimeoutError):
                await _send(writer, Answer.refusal(error), "GET", last=True)
        finally:
            writer.close()

    async def _turn(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller
    ) -> bool:
        """Answer one request; return whether another may come."""
        async with asyncio.timeout(_IDLE):
            head = await read_head(reader)
        if head is None:
            return False
        async with asyncio.timeout(_IDLE):
            body = await read_body(reader, head.headers, _BODY)
        answer = await self._answer(head, body, caller)
        last = head.headers.get("connection", "").lower() == "close" or answer.stream is not None
        if answer.stream is None:
            await _send(writer, answer, head.first[0], last=last)
            return not last
        streaming = asyncio.ensure_future(_send(writer, answer, head.first[0], last=True))
        leaving = asyncio.ensure_future(reader.read(1))  # at the end of the connection
        try:
            await asyncio.wait([streaming, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            streaming.cancel()
            leaving.cancel()
            await asyncio.wait([streaming, leaving])
        return False

    async def _answer(self, head: Head, body: bytes, caller: Caller) -> Answer:
        method, target, version = head.first
        if not version.startswith("HTTP/1."):
            return Answer.refusal(AdminError(400, "this is not HTTP/1.1"))
        path, _, query = target.partition("?")
        if not path.startswith(f"{PREFIX}/"):
            return Answer.refusal(
                AdminError(404, "there is nothing at this path", remedy=f"Ask below {PREFIX}/.")
            )
        try:
            api = await self._find()
        except VekoError as error:
            return Answer.refusal(AdminError(503, error.message, remedy=error.remedy))
        return await api.answer(
            Asked(
                method=method,
                path=segments_of(path.removeprefix(PREFIX)),
                query=query_of(query),
                headers=head.headers,
                body=body,
                caller=caller,
            )
        )


def _caller_of(writer: asyncio.StreamWriter) -> Caller | None:
    """Return who is at the other end; `None` if it is another user."""
    connection: socket.socket = writer.get_extra_info("socket")
    peer = peer_of(connection)
    if peer is None:
        return Caller("operate", "socket")
    pid, uid = peer
    if uid != os.geteuid():
        _log.warning("the user %d was refused at the control socket", uid)
        return None
    return Caller("operate", "socket", f"process {pid}")


async def _send(writer: asyncio.StreamWriter, answer: Answer, method: str, *, last: bool) -> None:
    headers = {**answer.headers, "connection": "close" if last else "keep-alive"}
    first = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"
    if answer.stream is None:
        headers["content-length"] = str(len(answer.body))
        writer.write(head_of(first, headers) + (b"" if method == "HEAD" else answer.body))
        await _drained(writer)
        return
    writer.write(head_of(first, {**headers, "transfer-encoding": "chunked"}))
    try:
        async for data in answer.stream:
            writer.write(chunk(data) if data else b"")
            await _drained(writer)
        writer.write(chunk(b""))
        await _drained(writer)
    finally:
        close = getattr(answer.stream, "aclose", None)
        if close is not None:
            await close()


async def _drained(writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(_STUCK):
        await writer.drain()


def _remove_stale(directory: Path) -> None:
    """Remove the sockets of processes that were killed."""
    for path in control_folder(directory).glob("*.sock"):
        if not answers(path):
            path.unlink(missing_ok=True)

"""Two ends of a connection in one process, and an end that writes whatever it likes."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from veko_plugins.remote.protocol import Connection

HELLO = {"runtime": "test", "pid": 1}


class Raw:
    """An end without a protocol of its own: what a worker might send."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.nonce = ""
        sock.setblocking(False)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def say(self, message: Any, tail: bytes = b"") -> None:
        await self.send(packed(message, tail))

    async def _exactly(self, count: int) -> bytes:
        loop, data = asyncio.get_running_loop(), b""
        while len(data) < count:
            more = await loop.sock_recv(self.sock, count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    async def hear(self) -> Any:
        """Return the next message, without its tail."""
        total, size = struct.unpack(">II", await self._exactly(8))
        rest = await self._exactly(total - 4)
        return msgspec.json.decode(rest[:size])

    async def greet(self, **facts: Any) -> dict[str, Any]:
        kind, hello = await self.hear()
        assert kind == "hello"
        self.nonce = hello["nonce"]
        await self.say(["hello", {"protocol": 1, **HELLO, **facts}])
        return dict(hello)


def packed(message: Any, tail: bytes = b"") -> bytes:
    text = message if isinstance(message, bytes) else msgspec.json.encode(message)
    return struct.pack(">II", 4 + len(text) + len(tail), len(text)) + text + tail


@contextlib.asynccontextmanager
async def raw_pair(**options: Any) -> AsyncIterator[tuple[Connection, Raw]]:
    """A host's connection that is open, and a worker's end."""
    ours, theirs = socket.socketpair()
    options.setdefault("methods", {})
    options.setdefault("notes", {})
    host, raw = Connection(ours, other="the worker of p", **options), Raw(theirs)
    opening = asyncio.create_task(host.open({"plugin": {"name": "p"}}, timeout=5))
    try:
        await raw.greet()
        await opening
        yield host, raw
    finally:
        theirs.close()
        await host.close()


@contextlib.asynccontextmanager
async def pair(
    host_options: dict[str, Any] | None = None, worker_options: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Connection, Connection]]:
    """The two ends of an open connection: the host's, the worker's."""
    ours, theirs = socket.socketpair()
    empty: dict[str, Any] = {"methods": {}, "notes": {}}
    host = Connection(ours, **(empty | (host_options or {})), other="the worker of p")
    worker = Connection(theirs, **(empty | (worker_options or {})), other="the host")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(host.open({"plugin": {"name": "p"}}, timeout=5))
            group.create_task(worker.open(HELLO, timeout=5, host=False))
        yield host, worker
    finally:
        await worker.close()
        await host.close()

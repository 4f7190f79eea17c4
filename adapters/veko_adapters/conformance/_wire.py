"""A client that sends bytes as they are, valid or not, and parses the answers itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["Answer", "Wire", "request", "wire"]

_SECONDS = 10.0
"""Seconds within which the server must answer or close the connection."""


class Answer(NamedTuple):
    """An answer, unprocessed.

    Attributes:
        status: The status code.
        headers: Names, in lower case, and values, in order.
        body: The body.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header of a name."""
        return next((value for key, value in self.headers if key == name), None)


def request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    """Return the bytes of a request; `content-length` is added unless `headers` announce a body."""
    lines = [f"{method} {target} HTTP/1.1", "host: test", *headers]
    framed = any(
        line.lower().startswith(("content-length", "transfer-encoding")) for line in headers
    )
    if body and not framed:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Wire:
    """A connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes, unless the server has closed the connection."""
        try:
            self._writer.write(data)
            async with asyncio.timeout(_SECONDS):
                await self._writer.drain()
        except ConnectionError:
            pass

    async def answer(self, *, to: str = "GET") -> Answer | None:
        """Read one answer; `None` if the server closed the connection.

        Args:
            to: The request's method, which decides whether a body follows.
        """
        async with asyncio.timeout(_SECONDS):
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            status = int(first.split(" ")[1])
            headers = [
                (line.partition(":")[0].lower(), line.partition(":")[2].strip()) for line in lines
            ]
            if status == 100:
                return await self.answer(to=to)
            answer = Answer(status, headers, b"")
            if to == "HEAD" or status in {204, 304}:
                return answer
            if (length := answer.header("content-length")) is not None:
                return answer._replace(body=await self._reader.readexactly(int(length)))
            if answer.header("transfer-encoding") == "chunked":
                return answer._replace(body=b"".join([chunk async for chunk in self._chunks()]))
            return answer._replace(body=await self._reader.read())

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readline(), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readline()
        await self._reader.readline()

    async def ask(self, data: bytes) -> Answer | None:
        """Send a request and read its answer."""
        await self.send(data)
        return await self.answer(to=data.partition(b" ")[0].decode("latin-1"))

    async def rest(self) -> bytes:
        """Read until the server closes the connection."""
        async with asyncio.timeout(_SECONDS):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    def finish(self) -> None:
        """Close the sending side."""
        self._writer.write_eof()

    async def close(self) -> None:
        """Abort the connection."""
        self._writer.transport.abort()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    """Connect to a server."""
    where = urlsplit(url)
    connection = Wire(*await asyncio.open_connection(where.hostname, where.port))
    try:
        yield connection
    finally:
        await connection.close()

"""HTTP/1.1 as the control socket and the client of the management API speak it.

A client needs nothing that is not installed with the command line, and a socket that serves one
user's own programs needs no server framework: heads of bounded size, bodies with a length or in
chunks, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

import msgspec

from .documents import StreamEvent
from .errors import AdminError

__all__ = [
    "Head",
    "chunk",
    "events_of",
    "head_of",
    "read_body",
    "read_chunks",
    "read_head",
    "read_stream",
]

_HEAD: Final = 32 * 1024
_LINE: Final = 64 * 1024
_EVENT: Final = 64 * 2**20
_END: Final = b"\r\n\r\n"


class Head(msgspec.Struct, frozen=True):
    """The head of a message.

    Attributes:
        first: The three parts of the first line.
        headers: The headers, names in lower case.
    """

    first: tuple[str, str, str]
    headers: dict[str, str]


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Read the head of a message; `None` if the other end is done.

    Raises:
        AdminError: It is not valid, or too long.
    """
    try:
        raw = await reader.readuntil(_END)
    except asyncio.IncompleteReadError as error:
        if not error.partial.strip():
            return None
        raise AdminError(400, "the connection ended within the head") from None
    except asyncio.LimitOverrunError:
        raise AdminError(431, "the head is too long") from None
    if len(raw) > _HEAD:
        raise AdminError(431, "the head is too long")
    first, *lines = raw[: -len(_END)].decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) == 2:  # a status without a reason
        parts.append("")
    if len(parts) != 3:
        raise AdminError(400, "the first line is not valid")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise AdminError(400, "a header is not valid")
        headers[name.lower()] = value.strip()
    return Head((parts[0], parts[1], parts[2]), headers)


async def read_body(
    reader: asyncio.StreamReader, headers: Mapping[str, str], most: int, *, to_end: bool = False
) -> bytes:
    """Read a body.

    Args:
        reader: The stream.
        headers: The headers of the message.
        most: The greatest length, in bytes.
        to_end: Whether one without a length lasts until the connection ends.

    Raises:
        AdminError: It is too long (413), or its length is not valid (400).
    """
    if headers.get("transfer-encoding", "").lower() == "chunked":
        parts = []
        size = 0
        async for part in read_chunks(reader):
            size += len(part)
            if size > most:
                raise AdminError(413, "the body is too long")
            parts.append(part)
        return b"".join(parts)
    text = headers.get("content-length")
    if text is None:
        body = await reader.read(most + 1) if to_end else b""
        while to_end and len(body) <= most and (more := await reader.read(most)):
            body += more
    elif not text.isdecimal():
        raise AdminError(400, "the length is not valid")
    elif int(text) > most:
        raise AdminError(413, "the body is too long")
    else:
        try:
            body = await reader.readexactly(int(text))
        except asyncio.IncompleteReadError:
            raise AdminError(400, "the connection ended within the body") from None
    if len(body) > most:
        raise AdminError(413, "the body is too long")
    return body


async def read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the chunks of a body.

    Raises:
        AdminError: A chunk is not valid.
    """
    try:
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            if size < 0 or size > 2**26:
                raise AdminError(400, "a chunk is too long")
            data = await reader.readexactly(size + 2)
            if not size:
                return
            yield data[:-2]
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        raise AdminError(400, "a chunk is not valid") from None


def head_of(first: str, headers: Mapping[str, str]) -> bytes:
    """Return a head as it is sent."""
    for name, value in headers.items():
        if any(one in f"{name}{value}" for one in "\r\n\0"):
            raise AdminError(400, "a header is not valid")
    lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1", "replace") + _END


def chunk(data: bytes) -> bytes:
    """Return a chunk as it is sent; an empty one ends the body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


async def read_stream(
    reader: asyncio.StreamReader, headers: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """Yield the pieces of a body that does not end by itself, as they arrive."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        async for part in read_chunks(reader):
            yield part
        return
    while part := await reader.read(_LINE):
        yield part


async def events_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[StreamEvent]:
    """Yield the server-sent events in a body.

    Raises:
        AdminError: One is too long.
    """
    rest = b""
    async for piece in pieces:
        rest += piece
        *blocks, rest = rest.split(b"\n\n")
        if len(rest) > _EVENT:
            raise AdminError(502, "an event of the stream is too long")
        for block in blocks:
            event = _event(block.decode("utf-8", "replace"))
            if event is not None:
                yield event


def _event(block: str) -> StreamEvent | None:
    fields: dict[str, list[str]] = {}
    for line in block.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    if "data" not in fields:
        return None
    return StreamEvent(
        id=fields.get("id", [""])[-1],
        topic=fields.get("event", ["message"])[-1],
        data=msgspec.json.decode("\n".join(fields["data"])),
    )

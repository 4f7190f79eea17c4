"""The client of a console."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from veko import StateError
from veko.errors import NotFoundError

from .._lib.control_files import address_of, live_sockets
from .messages import (
    Answer,
    Cancel,
    Complete,
    Done,
    Open,
    Opened,
    Output,
    Refused,
    Run,
    Words,
    read_message,
    written,
)
from .plugin import LONGEST, SUFFIX

__all__ = ["Connection", "connect", "find_consoles"]

_GONE: Final = "the application has closed the console"


def find_consoles(directory: Path) -> dict[int, Path]:
    """Return the sockets of the applications that run in a directory, by process."""
    return live_sockets(directory, SUFFIX)


async def connect(path: Path, plugin: str) -> Connection:
    """Open a console.

    Args:
        path: Its socket.
        plugin: The plugin that it looks into.

    Raises:
        NotFoundError: The plugin is not loaded.
        StateError: The application does not answer.
    """
    try:
        with address_of(path) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=LONGEST)
    except OSError as error:
        raise StateError(
            f"the application does not answer at its console: {error.strerror or error}",
            path=path,
            remedy="Is it still running, as this user?",
        ) from error
    connection = Connection(reader, writer)
    try:
        await connection.open(plugin)
    except BaseException:
        connection.close()
        raise
    return connection


class Connection:
    """An open console.

    Attributes:
        opened: What the console said of itself.
    """

    opened: Opened

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Answer)
        self._write: Callable[[str], object] = print
        self._done: asyncio.Queue[Done | None] = asyncio.Queue()
        self._words: asyncio.Queue[Words | None] = asyncio.Queue()
        self._asking = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None

    async def open(self, plugin: str) -> None:
        """Open it; see `connect`."""
        self._send(Open(plugin))
        try:
            async with asyncio.timeout(10):
                first = await self._read()
        except TimeoutError as error:
            raise StateError(
                "the application does not answer at its console within 10 s",
                remedy="Its event loop may be blocked: its log says by which plugin.",
            ) from error
        if isinstance(first, Refused):
            raise NotFoundError(first.why)
        if not isinstance(first, Opened):
            raise StateError(_GONE)
        self.opened = first
        self._reading = asyncio.create_task(self._read_all())

    async def run(self, code: str, write: Callable[[str], object], width: int = 80) -> Done:
        """Run code, and return its end.

        Args:
            code: The code.
            write: Gets what it prints.
            width: The width of the terminal, in characters.

        Raises:
            StateError: The application has gone.
        """
        self._write = write
        self._send(Run(code, width))
        done = await self._done.get()
        if done is None:
            self._done.put_nowait(None)
            raise StateError(_GONE)
        return done

    def cancel(self) -> None:
        """Cancel the code that runs; it ends soon, unless it blocks the application."""
        self._send(Cancel())

    async def complete(self, line: str) -> Words:
        """Return the words that may end a line; none if the application does not answer."""
        async with self._asking:
            self._send(Complete(line))
            words = await self._words.get()
            if words is None:
                self._words.put_nowait(None)
        return words or Words((), 0)

    def close(self) -> None:
        """Leave."""
        if self._reading is not None:
            self._reading.cancel()
        self._writer.close()

    def _send(self, message: Open | Run | Cancel | Complete) -> None:
        if not self._writer.is_closing():
            self._writer.write(written(message))

    async def _read(self) -> Any:
        try:
            return await read_message(self._reader, self._decoder)
        except ValueError:
            return None

    async def _read_all(self) -> None:
        while (answer := await self._read()) is not None:
            if isinstance(answer, Output):
                self._write(answer.text)
            elif isinstance(answer, Done):
                self._done.put_nowait(answer)
            elif isinstance(answer, Words):
                self._words.put_nowait(answer)
        self._done.put_nowait(None)
        self._words.put_nowait(None)

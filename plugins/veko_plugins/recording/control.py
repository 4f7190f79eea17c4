"""How `veko record` reaches a running application: a port on the loopback interface and a token.

Both are in a file that only the application's user can read. A message is one line of JSON, and so
is its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from .._lib.private_files import create_private, private_folder
from .files import RecordingError

__all__ = ["Answer", "Control", "ask_running", "serving"]

_FILE: Final = "control.json"
_LONGEST: Final = 64 * 1024
_SECONDS: Final = 30.0


class Control(msgspec.Struct, frozen=True):
    """Where a running application listens."""

    port: int
    token: str
    process: int


class Answer(msgspec.Struct, frozen=True):
    """What a running application says of its recorder.

    Attributes:
        recording: Whether it records.
        entries: How many entries it has in memory.
        folder: Where it writes files.
        path: The file that was just written.
        error: Why nothing was done.
    """

    recording: bool = False
    entries: int = 0
    folder: str = ""
    path: str | None = None
    error: str | None = None


@contextlib.asynccontextmanager
async def serving(folder: Path, answer: Callable[[str], Awaitable[Answer]]) -> AsyncIterator[None]:
    """Listen for `veko record` while the block runs.

    Args:
        folder: Where the port and the token are written.
        answer: Does what is asked: `start`, `stop`, `dump` or `where`.

    Raises:
        OSError: The file cannot be written, or no port is free.
    """
    token = secrets.token_hex(16)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                line = await reader.readuntil(b"\n")
                asked: object = msgspec.json.decode(line)
                given = asked.get("token") if isinstance(asked, dict) else None
                if not isinstance(given, str) or not hmac.compare_digest(
                    given.encode(), token.encode()
                ):
                    return
                assert isinstance(asked, dict)
                writer.write(msgspec.json.encode(await answer(str(asked.get("do")))) + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, msgspec.DecodeError,
                asyncio.LimitOverrunError, UnicodeError):  # fmt: skip
            return  # somebody who does not know how to ask
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=_LONGEST)
    file = folder / _FILE
    try:
        control = Control(server.sockets[0].getsockname()[1], token, os.getpid())
        private_folder(folder)
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
        with os.fdopen(create_private(file), "wb") as written:
            written.write(msgspec.json.encode(control))
        yield
    finally:
        server.close()
        with contextlib.suppress(OSError, msgspec.DecodeError):
            if msgspec.json.decode(file.read_bytes(), type=Control).token == token:
                file.unlink()


def ask_running(folder: Path, do: str) -> Answer:
    """Ask the running application whose recordings are in a folder.

    Args:
        folder: The folder.
        do: `start`, `stop`, `dump` or `where`.

    Raises:
        RecordingError: It does not run, or has no recorder.
    """
    try:
        control = msgspec.json.decode((folder / _FILE).read_bytes(), type=Control)
        with socket.create_connection(("127.0.0.1", control.port), timeout=_SECONDS) as link:
            link.sendall(msgspec.json.encode({"token": control.token, "do": do}) + b"\n")
            with link.makefile("rb") as lines:
                found = msgspec.json.decode(lines.readline(_LONGEST), type=Answer)
    except (OSError, msgspec.DecodeError) as error:
        raise RecordingError(
            "the application is not running, or has no recorder",
            path=folder,
            remedy="Add the section [plugins.recording] to veko.toml, and start it.",
        ) from error
    if found.error is not None:
        raise RecordingError(found.error, path=folder)
    return found

"""The core plugin `console`: lets `veko debug` into the running application, with `dev_mode`.

It listens on `.veko/control/<pid>.console`, a Unix socket. Its clients run any code in this
process, so the folder and the socket are for this user alone, and on Linux the system says which
user is at the other end.

Cost: a socket that is bound and listens. What answers is imported at the first connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from veko import Context, Plugin, StateError

from .._lib.control_files import address_of, live_sockets, made_folder, peer_of

__all__ = ["LONGEST", "SUFFIX", "Console"]

SUFFIX: Final = ".console"
LONGEST: Final = 4 * 1024 * 1024
"""Bytes of a message."""
_MOST: Final = 16
"""Consoles at once."""
_GRACE: Final = 5.0
"""Seconds that code which a stopping application cancels may take to end."""
_log: Final = logging.getLogger("veko.console")


class Console(Plugin):
    """The core plugin.

    Args:
        directory: The application's directory.
        manager: What consoles have as `manager`.
    """

    name = "console"
    version = "2.0.0"
    description = "Lets `veko debug` run code in the application, in development"
    core = True

    def __init__(self, directory: Path, manager: Any) -> None:
        self._directory = directory
        self._manager = manager
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, context: Context) -> None:
        """Listen; where that is not possible, warn."""
        await context.enter(self._listening())

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        simulated = getattr(asyncio.get_running_loop(), "simulated", False)
        if simulated or not hasattr(socket, "AF_UNIX"):
            yield
            return
        try:
            listener, path = _bound(self._directory)
        except (OSError, StateError) as error:
            _log.warning("veko debug cannot attach: %s", error)
            yield
            return
        server = await asyncio.start_unix_server(self._connected, sock=listener, limit=LONGEST)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            server.close()
            for task in tuple(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(tuple(self._tasks), timeout=_GRACE)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= _MOST or not _is_own(writer.get_extra_info("socket")):
            writer.close()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from .serving import serve

        try:
            await serve(reader, writer, self._manager)
        finally:
            writer.close()


def _bound(directory: Path) -> tuple[socket.socket, Path]:
    folder = made_folder(directory)
    live = live_sockets(directory, SUFFIX)
    for path in folder.glob(f"*{SUFFIX}"):
        if path not in live.values():
            path.unlink(missing_ok=True)  # its process was killed
    path = folder / f"{os.getpid()}{SUFFIX}"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address_of(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen(_MOST)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        path.unlink(missing_ok=True)
        raise
    return listener, path


def _is_own(connection: socket.socket) -> bool:
    """Return whether this user is at the other end, as far as the system says."""
    peer = peer_of(connection)
    if peer is not None and peer[1] != os.geteuid():
        _log.warning("the user %d was refused a console", peer[1])
        return False
    return True

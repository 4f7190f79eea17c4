"""The process of a Python worker: `main` is what the launcher forks into.

The socket to the host arrives as standard input and output; it moves to a descriptor of its own, so
that `print` and `input` of the plugin cannot touch it: what is printed goes to the log, and there
is nothing to read.

Cost: a few milliseconds where the modules that it needs were imported before the fork.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any, Final

from ..protocol import Connection
from .guest import Guest
from .kinds import kinds
from .network import WorkerLoop
from .records import ToHost, set_levels
from .requests import make_request, to_response
from .routes import make_route
from .sockets import make_socket

__all__ = ["main"]

_GREETING: Final = 30.0
"""Seconds for the host to greet."""
_LEAVING: Final = 5.0
"""Seconds for the plugin to unload when the host is gone."""


def main() -> int:
    """Run the worker until the host ends it.

    Returns:
        The exit status.
    """
    sock = _take_socket()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the host, which ends its workers
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    logging.captureWarnings(True)
    logging.getLogger("veko").addFilter(_is_workers_own)
    with asyncio.Runner(loop_factory=WorkerLoop) as runner:
        runner.run(_serve(sock))
    return 0


def _take_socket() -> socket.socket:
    sock = socket.socket(fileno=os.dup(0))
    nothing, end = os.pipe()  # a confined worker may not be able to open /dev/null
    os.close(end)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return sock


def _is_workers_own(record: logging.LogRecord) -> bool:
    """Return whether a record is not of a failure of the plugin's, which the host logs."""
    return not hasattr(record, "veko_plugin")


async def _serve(sock: socket.socket) -> None:
    guest = Guest()
    lost = asyncio.Event()

    def gone(reason: Exception | None) -> None:
        lost.set()
        guest.end()

    connection = Connection(
        sock,
        methods=guest.methods,
        notes=guest.notes,
        kinds=kinds(
            {
                "request": make_request,
                "response": to_response,
                "route": make_route,
                "socket": make_socket,
                "plugin": guest.known,
            },
            source=lambda: guest.source,
        ),
        lost=gone,
    )
    living = asyncio.create_task(guest.stay(connection))
    try:
        await _first(living, guest.ready.wait())
        runtime = f"python {sys.version.split()[0]}"
        await connection.open(
            {"runtime": runtime, "pid": os.getpid()}, timeout=_GREETING, host=False
        )
        set_levels(connection.peer.get("levels"))
        root = logging.getLogger()
        (printing,) = root.handlers
        root.handlers = [ToHost(connection, printing)]
        await _first(living, guest.ended())
        asyncio.get_running_loop().call_later(_LEAVING, os._exit, 0)
        await living
    finally:
        await connection.close()


async def _first(living: asyncio.Task[None], event: Coroutine[Any, Any, object]) -> None:
    """Wait for an event; raise what ended the guest before."""
    waiting = asyncio.ensure_future(event)
    try:
        await asyncio.wait([living, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if living.done():
        living.result()


if __name__ == "__main__":
    sys.exit(main())

"""Serving with uvicorn inside the caller's task: no signal handlers, no logging set up.

The socket is bound before uvicorn sees it, so that a port that is taken is an error like another,
and port 0 tells which one it became.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from veko.errors import OptionError

__all__ = ["serve"]


class _Server(uvicorn.Server):
    """A server that says when it has started."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()


async def serve(
    app: Any,
    host: str,
    port: int,
    *,
    started: Callable[[str, int], None] | None = None,
    stop: asyncio.Event | None = None,
    drain_timeout: float = 30.0,
    lifespan: bool = False,
) -> None:
    """Serve an ASGI application; see `veko_plugins.http.Adapter.serve`."""
    listener = _listen(host, port)
    address = listener.getsockname()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whoever is on this machine could otherwise call himself anybody
        lifespan="on" if lifespan else "off",
        timeout_graceful_shutdown=drain_timeout,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    )

    def tell() -> None:
        if started is not None:
            started(address[0], address[1])

    server = _Server(config, tell)
    stop = stop or asyncio.Event()
    # `serve` would take the signals, which belong to whoever runs the process.
    running = asyncio.ensure_future(server._serve([listener]))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopping.cancel()
        await _finish(running, stopping)
        await _finish(*server.server_state.tasks)
        listener.close()
    if not running.cancelled() and (error := running.exception()) is not None:
        if isinstance(error, SystemExit):
            raise OptionError("the application did not start") from error
        raise error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OptionError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            remedy="Choose another port, or stop what has it.",
        ) from error
    return listener


async def _finish(*tasks: asyncio.Future[Any]) -> None:
    """Wait for tasks to their end, even if this one is cancelled meanwhile."""
    cancelled = False
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            cancelled = True
            for task in tasks:
                task.cancel()
    if cancelled:
        raise asyncio.CancelledError

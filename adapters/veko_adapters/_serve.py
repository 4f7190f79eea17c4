"""Serving inside the caller's task: the listening socket, the bounds, and which server does it.

The socket is bound before a server sees it, so that a port that is taken is an error like another,
port 0 tells which one it became, and several processes may share one. No server takes signals or
sets up logging here. What clients may cost is bounded below, alike for every server as far as it
lets itself be told; what is not bounded is the time that a body takes to come and the number of
connections, which are for the proxy in front or the system's limits.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from veko.errors import OptionError

__all__ = [
    "BACKLOG", "HEADERS_TIMEOUT", "KEEP_ALIVE", "MAX_HEADERS", "MAX_HEADER_SIZE", "SERVERS",
    "WS_MAX_SIZE", "Run", "listen", "serve",
]  # fmt: skip

MAX_HEADER_SIZE: Final = 64 * 1024
"""Bytes of a request's line and headers together; more are a 431."""
MAX_HEADERS: Final = 100
"""Headers of a request; more are a 431."""
HEADERS_TIMEOUT: Final = 10.0
"""Seconds from the first byte of a request (or from connecting) to the end of its headers."""
KEEP_ALIVE: Final = 5.0
"""Seconds that a connection may lie idle between two requests."""
WS_MAX_SIZE: Final = 16 * 1024 * 1024
"""Bytes of a WebSocket's message; a larger one closes it with 1009."""
BACKLOG: Final = 2048
"""Connections that the system holds until they are accepted."""

SERVERS: Final = {"uvicorn": "veko[asgi]", "granian": "veko[granian]"}
"""The servers, and what to install for each."""


class Run(Protocol):
    """How a server's module runs it: until `stop` is set, then to the end of its requests."""

    async def __call__(
        self,
        app: Any,
        listener: socket.socket,
        started: Callable[[], None],
        stop: asyncio.Event,
        *,
        drain_timeout: float,
        lifespan: bool,
        access_log: bool,
        forwarded_allow_ips: Sequence[str],
    ) -> None: ...


async def serve(
    app: Any,
    host: str,
    port: int,
    *,
    server: str = "uvicorn",
    listener: socket.socket | None = None,
    started: Callable[[str, int], None] | None = None,
    stop: asyncio.Event | None = None,
    drain_timeout: float = 30.0,
    lifespan: bool = False,
    access_log: bool = False,
    forwarded_allow_ips: Sequence[str] = (),
) -> None:
    """Serve an ASGI application; see `veko_plugins.http.Adapter.serve`."""
    run = _find(server)
    if listener is None:
        listener = listen(host, port)
    address = listener.getsockname()

    def tell() -> None:
        if started is not None:
            started(address[0], address[1])

    with listener:
        await run(
            app,
            listener,
            tell,
            stop or asyncio.Event(),
            drain_timeout=drain_timeout,
            lifespan=lifespan,
            access_log=access_log,
            forwarded_allow_ips=forwarded_allow_ips,
        )


def _find(server: str) -> Run:
    if server not in SERVERS:
        raise OptionError(
            f"there is no server {server!r}", remedy=f"Known are {', '.join(SERVERS)}."
        )
    try:
        module = importlib.import_module(f"._{server}", __package__)
    except ImportError as error:
        raise OptionError(
            f"the server {server!r} needs {error.name or error}",
            remedy=f"pip install '{SERVERS[server]}'.",
        ) from error
    return cast("Run", module.run)


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket and listen on it.

    Raises:
        OptionError: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends without delay only where the socket says that it is TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OptionError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            remedy="Choose another port, or stop what has it.",
        ) from error
    return listener

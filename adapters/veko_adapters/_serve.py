"""Serving in the caller's task: the listening socket, the limits, and the choice of the server.

The socket is bound before a server gets it: a port that is in use is an ordinary error, port 0 is
resolved to the real one, and several processes may share a socket. No server handles signals or
configures logging. The limits below bound what a client may cost, for every server as far as its
options allow. Not bounded are the time that a body takes to arrive and the number of connections:
these are up to the proxy in front and the system's limits.
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
"""Seconds that a connection may be idle between two requests."""
WS_MAX_SIZE: Final = 16 * 1024 * 1024
"""Bytes of a WebSocket's message; a larger one closes it with 1009."""
BACKLOG: Final = 2048
"""Connections that the system holds until they are accepted."""

SERVERS: Final = {"uvicorn": "veko[asgi]", "granian": "veko[granian]"}
"""The servers, and what to install for each."""


class Run(Protocol):
    """The function `run` of a server's module: serves until `stop` is set, then drains."""

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

    def report() -> None:
        if started is not None:
            started(address[0], address[1])

    with listener:
        await run(
            app,
            listener,
            report,
            stop or asyncio.Event(),
            drain_timeout=drain_timeout,
            lifespan=lifespan,
            access_log=access_log,
            forwarded_allow_ips=forwarded_allow_ips,
        )


def _find(server: str) -> Run:
    if server not in SERVERS:
        raise OptionError(
            f"there is no server {server!r}", remedy=f"Use one of {', '.join(SERVERS)}."
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
    """Return a socket that listens.

    Args:
        host: The address; one with a colon is IPv6.
        port: The port; 0 takes a free one.

    Raises:
        OptionError: The address is in use or not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets whose protocol is TCP.
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
            remedy="Choose another port, or stop the process that uses it.",
        ) from error
    return listener

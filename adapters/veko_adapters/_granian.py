"""Serving with granian, embedded in the caller's event loop.

Granian calls this mode experimental. It waits for running requests without a limit; here those that
outlast the drain time-out are cancelled. It closes WebSockets when it stops, has one time-out for
headers and idle connections, and accepts at most 100 headers per request. It has no option for the
size of a WebSocket's message.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from granian.utils.proxies import wrap_asgi_with_proxy_headers

from veko.errors import OptionError

from ._serve import BACKLOG, HEADERS_TIMEOUT, MAX_HEADER_SIZE, MAX_HEADERS

__all__ = ["run"]

_log = logging.getLogger("_granian")
_LOGGING = {"incremental": True, "handlers": {}, "loggers": {}}
_CUT = 2.0
"""Seconds that cancelled requests may take to end."""


class _Server(Server):
    """A server on a socket that is already bound."""

    def __init__(self, descriptor: int, target: Any, **options: Any) -> None:
        level = _log.level
        super().__init__(target, log_dictconfig=_LOGGING, **options)
        # It sets a level itself, and would log another address than that of this socket.
        _log.setLevel(level)
        self._descriptor = descriptor

    def _init_shared_socket(self) -> None:
        make: Any = SocketHolder  # its stub has no arguments
        vars(self).update(_shd=make(self._descriptor, False, BACKLOG), _sfd=self._descriptor)


class _Tracked:
    """The application, and the tasks in which it answers.

    It bounds the headers: granian counts them only if it speaks HTTP/2 too, and its buffer holds
    more than `MAX_HEADER_SIZE`.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.tasks: set[asyncio.Task[Any]] = set()
        self.cut = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        if task is None or scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        self.tasks.add(task)
        try:
            headers = scope["headers"]
            size = sum(len(name) + len(value) for name, value in headers)
            if len(headers) > MAX_HEADERS or size > MAX_HEADER_SIZE:
                await _refuse(scope["type"], send)
            else:
                await self.app(scope, receive, send)
        except asyncio.CancelledError:
            if not self.cut:
                raise  # an intended cut is swallowed: granian would log it as an error
        finally:
            self.tasks.discard(task)


async def _refuse(kind: str, send: Any) -> None:
    """Answer a request whose headers are too many or too large with 431; refuse a handshake."""
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"connection", b"close"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 431, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def run(
    app: Any,
    listener: socket.socket,
    started: Callable[[], None],
    stop: asyncio.Event,
    *,
    drain_timeout: float,
    lifespan: bool,
    access_log: bool,
    forwarded_allow_ips: Sequence[str],
) -> None:
    """Serve until `stop` is set; see `_serve.Run`."""
    tracked = _Tracked(app)
    target: Any = tracked
    if forwarded_allow_ips:
        target = wrap_asgi_with_proxy_headers(target, trusted_hosts=list(forwarded_allow_ips))
    server = _Server(
        os.dup(listener.fileno()),  # granian closes it
        target,
        interface=Interfaces.ASGI if lifespan else Interfaces.ASGINL,
        backlog=BACKLOG,
        http=HTTPModes.http1,  # its HTTP/2 would take 1,000 headers and more
        log_access=access_log,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(HEADERS_TIMEOUT * 1000), max_buffer_size=MAX_HEADER_SIZE
        ),
    )
    listener.close()  # otherwise the system would continue to accept connections for it
    server.on_startup(lambda: asyncio.get_running_loop().call_soon(started))
    running = asyncio.ensure_future(server.serve())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        server.stop()  # type: ignore[no-untyped-call]
        await _finish(running, tracked, drain_timeout)
    if not running.cancelled() and (error := running.exception()) is not None:
        raise OptionError(f"granian did not start: {error}") from error


async def _finish(running: asyncio.Future[Any], tracked: _Tracked, drain_timeout: float) -> None:
    """Wait for running requests; cancel them after the time-out or if this task is cancelled."""
    cancelled = False
    try:
        await asyncio.wait([running], timeout=drain_timeout)
    except asyncio.CancelledError:
        cancelled = True
    if not running.done():
        tracked.cut = True
        for task in tuple(tracked.tasks):
            task.cancel()
        await asyncio.wait([running], timeout=_CUT)
        running.cancel()
    if cancelled:
        raise asyncio.CancelledError

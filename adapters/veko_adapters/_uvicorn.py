"""Serving with uvicorn: httptools for HTTP, websockets, uvloop if the caller's loop is one.

Uvicorn itself accepts headers of any size for any time: a client that never ends them would keep
its connection, and the memory of what it sent, forever. The protocol here ends such a request with
431, or closes the connection after `HEADERS_TIMEOUT`. What stands between and behind the chunks of
a body is bounded the same way, and trailers are dropped: uvicorn would append them to the headers
that the application reads. Cost: one timer for each connection, and one for each request whose
headers do not arrive in one piece.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import uvicorn
import websockets  # noqa: F401  (without it uvicorn would refuse every WebSocket)
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from veko.errors import OptionError

from ._serve import (
    BACKLOG,
    HEADERS_TIMEOUT,
    KEEP_ALIVE,
    MAX_HEADER_SIZE,
    MAX_HEADERS,
    WS_MAX_SIZE,
)  # fmt: skip

__all__ = ["run"]

_TOO_LARGE = b"Request headers too large."
_FRAMING = 256
"""Bytes between two parts of a body that are not timed: a client may pause within them."""
_PARSED = 4096
"""Bytes of a WebSocket that are parsed before the time is looked at."""
_SLICE = 0.01
"""Seconds for which frames that arrived at once are parsed before others get a turn."""
_PIPELINED = 100
"""Requests that a client may send ahead; one more closes the connection."""


class _Trailers(list[tuple[bytes, bytes]]):
    """Takes the place of a request's headers once they are complete: counts trailers, drops them.

    Attributes:
        number: How many there were.
        size: Their bytes.
    """

    number = size = 0

    def append(self, pair: tuple[bytes, bytes]) -> None:
        """Count a trailer.

        Raises:
            ValueError: There are more than a head may have; ends the parsing.
        """
        self.number += 1
        self.size += len(pair[0]) + len(pair[1])
        if self.number > MAX_HEADERS or self.size > MAX_HEADER_SIZE:
            raise ValueError("the trailers are too large")


class _Bounded(HttpToolsProtocol):
    """Uvicorn's protocol, with limits for headers and trailers."""

    _timer: asyncio.TimerHandle | None = None
    _heading = True  # the headers of a request have not ended
    _size = 0  # bytes of them, or since the last part of the body, that arrived in earlier pieces
    _bodied = False  # this piece had a part of the body
    _trailers: _Trailers | None = None
    _ahead: tuple[RequestResponseCycle, ...] = ()  # unanswered requests before the newest

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        # Uvicorn informs the newest request only, not the one that is being answered before it.
        for cycle in self._ahead:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self._ahead = ()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.headers
        self._bodied = False
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle
        if self._heading:
            # A request that began in this piece has at most the length of the piece.
            self._size = len(data) if self.headers is not before else self._size + len(data)
            late = True
        else:
            framing = cycle is not None and cycle.more_body
            self._size = self._size + len(data) if framing and not self._bodied else 0
            late = not self._answering()
            if not late:
                late = framing and (self._trailing() or self._size > _FRAMING)
                if not late and self._timer is not None:
                    self._disarm()
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return  # the connection is closing, or a WebSocket now
        if self._size > MAX_HEADER_SIZE:
            self._refuse()
        elif late and self._timer is None:
            self._arm()

    def on_body(self, body: bytes) -> None:
        self._bodied = True
        super().on_body(body)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._heading = True

    def on_headers_complete(self) -> None:
        self._disarm()
        size, hosts = len(self.url), 0
        for name, value in self.headers:
            size += len(name) + len(value)
            if name == b"host":
                hosts += 1
        if hosts > 1:  # a proxy in front may have read the other one (RFC 9112, section 3.2)
            raise ValueError("more than one host")
        if len(self.headers) > MAX_HEADERS or size > MAX_HEADER_SIZE:
            self._refuse()
            raise ValueError("the headers are too large")  # ends the parsing
        if self._answering():
            if len(self.pipeline) >= _PIPELINED:
                self.transport.close()
                raise ValueError("too many requests at once")
            self._ahead = (*(one for one in self._ahead if not one.response_complete), self.cycle)
        self._heading = False
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is before:
            return  # a handshake, whose headers uvicorn will read
        if self._trailers is None:
            self._trailers = _Trailers()
        self._trailers.number = self._trailers.size = 0
        self.headers = self._trailers  # the scope has the list itself

    def send_400_response(self, msg: str) -> None:
        if self._answered():
            self.transport.close()
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    def _answered(self) -> bool:
        """Return whether an answer now would get into one that is under way, or before it."""
        cycle: RequestResponseCycle | None = self.cycle
        return self._answering() and (
            self._heading or bool(self.pipeline) or cycle is None or cycle.response_started
        )

    def _trailing(self) -> bool:
        return self._trailers is not None and self._trailers.number > 0

    def _refuse(self) -> None:
        if self._answered():
            self.transport.close()
            return
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
            b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n\r\n%b"
            % (len(_TOO_LARGE), _TOO_LARGE)
        )
        self.transport.close()

    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _arm(self) -> None:
        self._timer = self.loop.call_later(HEADERS_TIMEOUT, self._late)

    def _late(self) -> None:
        self._timer = None
        if self._answering() and self._heading:  # it is pipelined behind a running one
            self._arm()
        elif not self.transport.is_closing():
            self.transport.close()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Sockets(WebSocketsSansIOProtocol):
    """Uvicorn's protocol, without a log line for each refused handshake, and in slices.

    What a client sends at once can hold hundreds of thousands of frames, and the event loop reads
    on while there is more: 7 MB of one-byte fragments held it for 13 s.
    """

    _pending = b""  # arrived, and not parsed yet

    def data_received(self, data: bytes) -> None:
        if self._pending:
            self._pending += data
        elif len(data) <= _PARSED:
            super().data_received(data)
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        end = monotonic() + _SLICE
        for start in range(0, len(data), _PARSED):
            if self.transport.is_closing():
                return
            if monotonic() > end:
                self._pending = data[start:]
                self.transport.pause_reading()
                self.loop.call_soon(self._continue)
                return
            super().data_received(data[start : start + _PARSED])

    def _continue(self) -> None:
        data, self._pending = self._pending, b""
        self._parse(data)
        if not (self._pending or self.read_paused or self.transport.is_closing()):
            self.transport.resume_reading()

    async def receive(self) -> Any:
        message = await super().receive()
        if self._pending:
            self.transport.pause_reading()  # uvicorn has resumed it
        return message

    async def send(self, message: Any) -> None:
        await super().send(message)
        # Uvicorn does not count a refusal as an answer, and logs that there was none.
        self.handshake_complete = self.handshake_complete or self.close_sent


class _Server(uvicorn.Server):
    """A server that calls back when it has started."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._on_start()


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
    config = uvicorn.Config(
        app,
        http=_Bounded,
        ws=_Sockets,
        log_config=None,
        access_log=access_log,
        server_header=False,
        # Trusting proxies by default would let any local process forge the client's address.
        proxy_headers=bool(forwarded_allow_ips),
        forwarded_allow_ips=list(forwarded_allow_ips),
        lifespan="on" if lifespan else "off",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        timeout_graceful_shutdown=drain_timeout,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        ws_max_size=WS_MAX_SIZE,
    )
    server = _Server(config, started)
    # `serve` would install signal handlers; signals are up to the caller.
    log = logging.getLogger("uvicorn.error")
    log.addFilter(_no_cut)
    running = asyncio.ensure_future(server._serve([listener]))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopping.cancel()
        await _finish(running, stopping)
        await _finish(*server.server_state.tasks)
        for connection in tuple(server.server_state.connections):
            connection.transport.abort()  # its response was cut
        log.removeFilter(_no_cut)
    if not running.cancelled() and (error := running.exception()) is not None:
        if isinstance(error, SystemExit):
            raise OptionError(
                "the application did not start", remedy="Its lifespan failed; see the log."
            ) from error
        raise error


def _no_cut(record: logging.LogRecord) -> bool:
    """Filter out the tracebacks of requests that were cut on purpose; one line reports the cut."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


async def _finish(*tasks: asyncio.Future[Any]) -> None:
    """Wait until tasks have ended, even if this one is cancelled meanwhile."""
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

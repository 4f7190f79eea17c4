"""The wire: a socket that takes and gives frames.

What is written within one turn of the loop goes out in one write. Reading gives way to the rest of
the loop after a few milliseconds, however much has arrived.

Promise: memory is bounded by the largest frame on the way in. On the way out, `room` asks writers
to wait above 1 MiB, `full` is true above two of the largest frames, and a side that leaves twice as
much unread is cut off.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Final, Protocol, cast

from .errors import Violation
from .framing import Frames

__all__ = ["Receiver", "Wire"]

_HIGH: Final = 2**20
"""Bytes that wait to be sent, above which writers should wait."""
_SLICE: Final = 0.002
"""Seconds of reading after which the rest of the loop has its turn."""
_LONG: Final = 0.01
"""Seconds of reading, by one frame, after which it has as much time."""
_MOST_FRAMES: Final = 100
"""Frames after which it has its turn too: each may have started a task, which runs then."""


class Receiver(Protocol):
    """What uses a wire."""

    def received(self, buffer: bytearray, start: int, end: int, last: int) -> None:
        """Take a frame: its JSON is `buffer[start:end]`, its tail `buffer[end:last]`.

        Raises:
            Violation: Something is wrong with it; the wire is cut.
        """
        ...

    def broke(self, violation: Violation) -> None:
        """Hear that the other side broke the protocol, or no longer reads."""
        ...

    def gone(self) -> None:
        """Hear that the socket is closed."""
        ...


class Wire(asyncio.BufferedProtocol):
    """A socket for frames.

    Args:
        frames: Finds the frames in what arrives.
        receiver: Gets the frames.

    Attributes:
        heard: Whether something arrived since this was set to false.
        room: While too much waits to be sent: is done when there is room again.
        closed: Is done when the socket is closed.
    """

    def __init__(self, frames: Frames, receiver: Receiver) -> None:
        self._frames = frames
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_size = 0
        self._most = 2 * frames.limit
        self._blocked = False  # the transport's buffer is above its mark
        self._resuming: asyncio.Handle | None = None
        self._ended = False
        self.heard = False
        self.room: asyncio.Future[None] | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()

    async def connect(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        sock.setblocking(False)
        await self._loop.create_connection(lambda: self, sock=sock)

    # -- writing

    @property
    def waiting(self) -> int:
        """The bytes that wait to be sent."""
        transport = self._transport
        return self._out_size + (transport.get_write_buffer_size() if transport else 0)

    @property
    def full(self) -> bool:
        """Whether the other side has left so much unread that no more should be sent."""
        return self.room is not None and self.waiting > self._most

    def write(self, frame: bytes) -> None:
        """Send a frame, with all others of this turn of the loop; after the end, do nothing."""
        if self._ended:
            return
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(frame)
        self._out_size += len(frame)
        if self._out_size > _HIGH and self.room is None:
            self.room = self._loop.create_future()

    def flush(self) -> None:
        """Hand what was written to the system."""
        out = self._out
        if not out or self._transport is None or self._ended:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_size = 0
        self._transport.write(data)
        if self.room is not None:
            if not self._blocked:
                self.resume_writing()
            elif self.waiting > 2 * self._most:
                self._receiver.broke(Violation(f"left {self.waiting} bytes unread"))

    def pause_writing(self) -> None:
        """Ask writers to wait (called by the transport)."""
        self._blocked = True
        if self.room is None:
            self.room = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let writers write (called by the transport)."""
        self._blocked = False
        room, self.room = self.room, None
        if room is not None and not room.done():
            room.set_result(None)

    # -- reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (called by the loop)."""
        # uvloop's transports have its methods, and not its class.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go (called by the transport)."""
        return self._frames.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes (called by the transport)."""
        self._frames.written(nbytes)
        self.heard = True
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the socket is closed (called by the transport)."""
        self._stop()
        if not self.closed.done():
            self.closed.set_result(None)
        self._receiver.gone()

    def _read(self) -> None:
        frames, received = self._frames, self._receiver.received
        start, left = time.perf_counter(), _MOST_FRAMES
        try:
            while not self._ended and (found := frames.next()) is not None:
                received(frames.buffer, *found)
                left -= 1
                if (took := time.perf_counter() - start) > _SLICE or not left:
                    self._pause(took)
                    return
        except Violation as error:
            self._receiver.broke(error)

    def _pause(self, took: float) -> None:
        if self._ended or self._transport is None or self._resuming is not None:
            return
        self._transport.pause_reading()
        if took < _LONG:
            self._resuming = self._loop.call_soon(self._resume)
        else:  # large frames, one after the other, leave the loop half of its time
            self._resuming = self._loop.call_later(took, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._read()
        if self._transport is not None and not (self._paused() or self._ended):
            self._transport.resume_reading()

    def _paused(self) -> bool:
        return self._resuming is not None

    # -- ending

    def close(self, *, at_once: bool) -> None:
        """Close the socket: at once, or after what was written has been sent."""
        if not at_once:
            self.flush()
        self._stop()
        if self._transport is None:
            return
        if at_once:
            self._transport.abort()
        else:
            self._transport.close()

    def _stop(self) -> None:
        self._ended = True
        if self._resuming is not None:
            self._resuming.cancel()
        self._out.clear()
        self._out_size = 0
        self._blocked = False
        room, self.room = self.room, None
        if room is not None and not room.done():
            room.set_result(None)

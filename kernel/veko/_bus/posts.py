"""Posting: emitting from where nothing can be awaited.

What is posted is emitted soon, in order, by one task. Posting an event that has no handlers costs a
dict lookup.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.from_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .bus import Bus
from .limits import is_cancellation, on_asyncio, stray_cancellation
from .turns import Turns

__all__ = ["BACKLOG", "Post", "Posts"]

BACKLOG: Final = 10_000
Post = tuple[str, tuple[object, ...]]
_log: Final = logging.getLogger("veko")


class Posts:
    """A queue of at most `BACKLOG` emissions.

    When it is full the oldest is dropped for each new one. What is dropped, or posted while the
    queue is not open, is counted, and the log says how many.

    Attributes:
        waiting: How many emissions wait.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.waiting = 0
        self._dropped = 0
        self._thread, self._loop = threading.get_ident(), on_asyncio()
        self._send: MemoryObjectSendStream[Post] | None = None
        self._receive: MemoryObjectReceiveStream[Post]
        self._done: anyio.Event

    def open(self) -> None:
        """Accept posts; they wait until `run` runs. May be opened again once it is closed."""
        self._thread, self._loop = threading.get_ident(), on_asyncio()
        self._send, self._receive = anyio.create_memory_object_stream[Post](BACKLOG)
        self._done = anyio.Event()

    def add(self, event: str, *args: object) -> None:
        """Emit an event soon; from another thread, once the loop has a turn."""
        if self._bus.live[event] is None:  # not `heard`: it is not emitted in a pin of the caller
            return
        if threading.get_ident() != self._thread:
            self._hand_over(event, *args)
            return
        if self._send is None:
            _log.warning("%s was posted while nothing runs that emits it: dropped", event)
            return
        if self.waiting >= BACKLOG:
            self._receive.receive_nowait()
            self.waiting -= 1
            self._dropped += 1
        self.waiting += 1
        self._send.send_nowait((event, args))

    def add_all(self, posts: Sequence[tuple[str, *tuple[object, ...]]]) -> None:
        """Emit some soon: a change of many routes posts as many, and mostly nobody hears."""
        heard = {name for name in {post[0] for post in posts} if self._bus.live[name] is not None}
        for post in posts if heard else ():
            if post[0] in heard:
                self.add(*post)

    def _hand_over(self, event: str, *args: object) -> None:
        """Add a post on the loop: the stream must not be touched in another thread."""
        if self._loop is None:  # trio: only threads that anyio has started can call it
            anyio.from_thread.run_sync(self.add, event, *args)
            return
        try:
            self._loop.call_soon_threadsafe(self.add, event, *args)
        except RuntimeError:
            _log.warning("%s was posted when the event loop had ended: dropped", event)

    async def run(self) -> None:
        """Emit what is posted, until the queue is closed and empty."""
        try:
            with self._receive as posted:
                turns = Turns()
                while True:
                    try:
                        # Asked first, since `receive` goes through the event loop every time.
                        event, args = posted.receive_nowait()
                    except anyio.WouldBlock:
                        try:
                            event, args = await posted.receive()
                            turns = Turns()
                        except anyio.get_cancelled_exc_class():
                            if stray_cancellation():
                                continue
                            raise
                    self.waiting -= 1
                    try:
                        await self._bus.emit(event, *args)
                        if turns.due:  # a change may post thousands
                            await turns.pause()
                    except BaseException as error:  # of a type that the event names in `stops`
                        if is_cancellation(error):
                            if stray_cancellation():
                                continue
                            raise
                        await self._bus.report(error, event=event)
                    self._say_dropped()
        except anyio.EndOfStream:
            pass
        finally:
            self._close_send()
            self._dropped += self.waiting
            self.waiting = 0
            self._say_dropped()
            self._done.set()

    async def close(self, seconds: float) -> None:
        """Accept no more posts, and wait until those that wait were emitted.

        Args:
            seconds: How long to wait at most; what waits then is dropped when `run` is cancelled.
        """
        self._close_send()
        with anyio.move_on_after(seconds):
            await self._done.wait()

    def _close_send(self) -> None:
        send, self._send = self._send, None
        if send is not None:
            send.close()

    def _say_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            _log.warning("%d posted events were dropped: too many at once, or too late", dropped)

"""The live feed: what happens, for those who look, as server-sent events.

While nobody looks nothing is subscribed, counted or measured. A client has a queue of bounded
length; what does not fit is dropped, the oldest first, and the client is sent the number. So a
client that stops reading costs `MOST` messages, and slows nobody down.

Messages of the topics: `events` has how often each event was emitted since the last message and the
latest of them, four times a second at most; `stats` the counts of the application and of each
plugin; `plugins` a plugin whenever it changes; `logs`, `changes` and `traces` one of these each.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from veko import Subscription

from .errors import AdminError
from .exchange import encode
from .records import LEVELS
from .rows import plugin_service

if TYPE_CHECKING:
    from veko import Context

    from .changing import Changing

__all__ = ["TOPICS", "Feed"]

TOPICS: Final = ("plugins", "stats", "events", "logs", "changes", "traces")
MOST: Final = 1_000
"""Messages that wait for a client."""
_CLIENTS: Final = 32
_KEPT: Final = 500
_LATEST: Final = 50
"""Events that a message of the topic `events` shows; of more, it has the numbers."""
_TICK: Final = 0.25
_STATS: Final = 1.0
_QUIET: Final = 15.0
"""Seconds after which a client is sent a comment, so that one that is gone is noticed."""
_SHARE: Final = 100
"""What is measured takes one part in so many of the time, at most."""
_MOVES: Final = ("plugin:*", "config:change")


class _Message(NamedTuple):
    number: int
    topic: str
    plugin: str | None
    level: int
    data: bytes


class _Client:
    """One that looks."""

    def __init__(self, topics: frozenset[str], plugin: str | None, level: int) -> None:
        self.topics = topics
        self._plugin = plugin
        self._level = level
        self._waiting: deque[_Message] = deque()
        self._dropped = 0
        self._awake = asyncio.Event()
        self.ended = False

    def put(self, message: _Message) -> None:
        """Add a message that the client asked for; if there are too many, the oldest is dropped."""
        if message.topic not in self.topics or message.level < self._level:
            return
        if self._plugin is not None and message.plugin not in (None, self._plugin):
            return
        if len(self._waiting) >= MOST:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(message)
        self._awake.set()

    def end(self) -> None:
        """Send what waits, and no more."""
        self.ended = True
        self._awake.set()

    async def take(self) -> tuple[int, list[_Message]]:
        """Wait for messages; return how many were dropped before them, and them."""
        if not self._waiting and not self.ended:
            self._awake.clear()
            try:
                async with asyncio.timeout(_QUIET):
                    await self._awake.wait()
            except TimeoutError:
                return 0, []
        found, dropped = list(self._waiting), self._dropped
        self._waiting.clear()
        self._dropped = 0
        return dropped, found


class Feed:
    """The live feed of an application.

    Args:
        context: The context of the core plugin `admin`.
        of: The verbs that look.
    """

    def __init__(self, context: Context, of: Changing) -> None:
        self._kernel = context.kernel
        self._of = of
        self._clients: list[_Client] = []
        self._sources: dict[str, ExitStack] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._epoch = ""
        self._number = 0
        self._kept: deque[_Message] = deque(maxlen=_KEPT)
        self._counts: dict[str, int] = {}
        self._latest: list[tuple[float, str, str | None]] = []
        self._moved: dict[str, str] = {}

    async def stream(
        self,
        topics: str = "",
        *,
        plugin: str | None = None,
        level: str | None = None,
        after: str | None = None,
    ) -> AsyncIterator[bytes]:
        """Return what happens from now on, as server-sent events.

        Args:
            topics: The topics, joined by commas; all by default.
            plugin: Only what is about this plugin, or about none.
            level: Only log records of this level or above.
            after: The id of the last message that the client has; what came after it is sent
                first, if it is still kept, else the message `reset`.

        Raises:
            AdminError: A topic or the level is unknown (422), or too many look (503).
        """
        wanted = frozenset(one.strip() for one in topics.split(",") if one.strip()) or TOPICS
        if unknown := set(wanted) - set(TOPICS):
            raise AdminError(
                422,
                f"there is no topic {min(unknown)[:40]!r}",
                remedy=f"There are: {', '.join(TOPICS)}.",
            )
        if len(self._clients) >= _CLIENTS:
            raise AdminError(
                503,
                f"{_CLIENTS} clients look already",
                remedy="Close some of them.",
                headers={"retry-after": "5"},
            )
        client = _Client(frozenset(wanted), plugin, LEVELS.index(level) if level else 0)
        return self._messages(client, after)

    async def _messages(self, client: _Client, after: str | None) -> AsyncIterator[bytes]:
        self._join(client)
        try:
            missed = self._missed(after)
            yield b"retry: 2000\n\n"
            if missed is None:
                yield self._written("reset", {}, self._number)
            for message in missed or ():
                client.put(message)
            while not client.ended:
                dropped, messages = await client.take()
                lines = []
                if dropped:
                    lines.append(self._written("dropped", {"count": dropped}, None))
                lines += [self._line(message) for message in messages]
                yield b"".join(lines) or b": quiet\n\n"
        finally:
            self._leave(client)

    def end(self) -> None:
        """End all streams."""
        for client in self._clients:
            client.end()

    async def close(self) -> None:
        """End all streams and what feeds them."""
        self.end()
        self._stop()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- messages

    def _line(self, message: _Message) -> bytes:
        head = f"id: {self._epoch}-{message.number}\nevent: {message.topic}\ndata: "
        return head.encode() + message.data + b"\n\n"

    def _written(self, event: str, data: object, number: int | None) -> bytes:
        id_line = b"" if number is None else f"id: {self._epoch}-{number}\n".encode()
        return id_line + b"event: " + event.encode() + b"\ndata: " + encode(data) + b"\n\n"

    def _missed(self, after: str | None) -> list[_Message] | None:
        """Return what a client has missed; `None` if that is not known any more."""
        if not after:
            return []
        epoch, _, text = after.rpartition("-")
        if epoch != self._epoch or not text.isdecimal():
            return None
        number = int(text)
        oldest = self._kept[0].number if self._kept else self._number + 1
        if number > self._number or number + 1 < oldest:
            return None
        return [one for one in self._kept if one.number > number]

    def _send(
        self, topic: str, data: object, *, plugin: str | None = None, level: int = len(LEVELS)
    ) -> None:
        self._number += 1
        message = _Message(self._number, topic, plugin, level, encode(data))
        self._kept.append(message)
        for client in self._clients:
            client.put(message)

    # -- what feeds it

    def _join(self, client: _Client) -> None:
        if not self._clients:
            self._epoch, self._number = secrets.token_hex(4), 0
            self._kept.clear()
            self._loop = asyncio.get_running_loop()
        self._clients.append(client)
        self._adjust()

    def _leave(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._adjust()

    def _stop(self) -> None:
        self._clients.clear()
        self._adjust()

    def _adjust(self) -> None:
        """Begin what a topic needs when a client asks for it; end it when none does."""
        wanted = {topic for client in self._clients for topic in client.topics}
        begin: Mapping[str, Callable[[ExitStack], object]] = {
            "plugins": self._begin_plugins,
            "stats": lambda stack: self._begin_task(stack, "stats", self._measure),
            "events": self._begin_events,
            "logs": self._begin_logs,
            "changes": self._begin_changes,
            "traces": lambda stack: self._begin_task(stack, "traces", self._follow_traces),
        }
        for topic in wanted - self._sources.keys():
            stack = self._sources[topic] = ExitStack()
            begin[topic](stack)
        for topic in self._sources.keys() - wanted:
            self._sources.pop(topic).close()

    def _begin_task(self, stack: ExitStack, name: str, run: Callable[[], Any]) -> None:
        task = asyncio.ensure_future(run())
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._task_done(name, done))
        stack.callback(task.cancel)

    def _task_done(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._kernel.post("plugin:error", None, error)

    def _begin_plugins(self, stack: ExitStack) -> None:
        for event in _MOVES:
            handler = self._kernel.bus.on(event, self._plugin_moved, observe=True)
            stack.callback(handler.cancel)
        self._begin_task(stack, "plugins", self._flush_plugins)

    def _plugin_moved(self, first: object = None, second: object = None, *_: object) -> None:
        name = first if isinstance(first, str) else getattr(second, "name", None)
        if isinstance(name, str):
            self._moved[name] = name

    async def _flush_plugins(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            moved, self._moved = self._moved, {}
            known = {row.name: row for row in self._of.plugins(core=True)} if moved else {}
            for name in moved:
                self._send("plugins", {"name": name, "plugin": known.get(name)}, plugin=name)

    def _begin_events(self, stack: ExitStack) -> None:
        bus = self._kernel.bus
        handler = bus.on("**", _nothing, observe=True, priority=float("inf"))
        stack.callback(handler.cancel)
        # Only an interceptor learns which event a handler of a pattern is called for, once, when
        # the plan of that event is made.
        wrapped = bus.intercept(lambda event, one, call: self._counted(event, one, handler, call))
        stack.callback(wrapped.cancel)
        self._begin_task(stack, "events", self._flush_events)

    def _counted(
        self,
        event: str,
        one: Subscription,
        own: Subscription,
        call: Callable[..., Any],
    ) -> Callable[..., Any]:
        """Return what counts an event in place of the handler of this feed."""
        if one is not own:
            return call
        counts, about = self._counts, event.startswith("plugin:")

        def count(*args: object) -> None:
            counts[event] = counts.get(event, 0) + 1
            if len(self._latest) < _LATEST:
                plugin = args[0] if about and args and isinstance(args[0], str) else None
                self._latest.append((time.time(), event, plugin))

        return count

    async def _flush_events(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            if not self._counts:
                continue
            counts, latest = dict(self._counts), self._latest
            self._counts.clear()  # the functions that count hold this very dictionary
            self._latest = []
            shown = [{"time": at, "event": event, "plugin": name} for at, event, name in latest]
            more = sum(counts.values()) - len(shown)
            self._send("events", {"counts": counts, "latest": shown, "more": max(0, more)})

    def _begin_logs(self, stack: ExitStack) -> None:
        loop = self._loop
        assert loop is not None

        def heard(row: Any) -> None:
            level = LEVELS.index(row.level)
            if loop.is_closed():
                return
            # A record may be logged in any thread.
            loop.call_soon_threadsafe(
                lambda: self._send("logs", row, plugin=row.plugin, level=level)
            )

        self._of.logs.heard = heard
        stack.callback(setattr, self._of.logs, "heard", None)

    def _begin_changes(self, stack: ExitStack) -> None:
        def heard(change: Any) -> None:
            self._send("changes", change, plugin=None)

        self._of.history.heard = heard
        stack.callback(setattr, self._of.history, "heard", None)

    async def _measure(self) -> None:
        """Send the counts; the more it takes, the rarer.

        `recent` is the 95th percentile of the calls since the message before, the others are those
        of all calls.
        """
        metrics = plugin_service(self._kernel, "metrics")
        window = None if metrics is None else metrics.window()
        while True:
            begin = time.perf_counter()
            recent: Mapping[str, float] = {} if window is None else window.take()
            status = self._of.status()
            rows = [
                {
                    "name": row.name,
                    "state": row.state,
                    "health": row.health,
                    "calls": row.calls,
                    "p50": row.p50,
                    "p95": row.p95,
                    "p99": row.p99,
                    "recent": recent.get(row.name),
                    "errors": row.errors,
                    "error_count": row.error_count,
                    "cpu": row.cpu,
                    "blocked_seconds": row.blocked_seconds,
                }
                for row in self._of.plugins()
            ]
            self._send("stats", {"time": time.time(), "status": status, "plugins": rows})
            took = time.perf_counter() - begin
            await asyncio.sleep(max(_STATS, took * _SHARE))

    async def _follow_traces(self) -> None:
        known: set[str] | None = None
        while True:
            begin = time.perf_counter()
            try:
                rows = await self._of.traces(limit=10)
            except Exception:  # no traces are kept; that may change
                rows = ()
            for row in reversed(rows):
                if known is not None and row.id not in known:
                    self._send("traces", row)
            known = {row.id for row in rows}
            took = time.perf_counter() - begin
            await asyncio.sleep(max(_STATS, took * _SHARE))


def _nothing(*_: object) -> None:
    """Stand for the function that counts; see `Feed._counted`."""

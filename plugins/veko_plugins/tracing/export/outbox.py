"""The outbox: takes spans off the tape, and hands them to everything that wants them.

Spans come from two sides: ours from the tape, read by the pump on the event loop, and those that
plugins start with OpenTelemetry, from any thread. They go to a collector, to the processors of the
application's provider, and to the traces kept in memory, each of which may be missing.

Promise: memory is bounded on every way, and what is dropped is counted.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import anyio.to_thread
import msgspec

from ..recording.records import spans_of
from ..recording.rows import Row, rows
from . import sdk
from .otlp import Scope, export_request
from .packed import encode
from .pump import Pump

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from ..recording.recorder import Recorder
    from ..recording.records import Record
    from .sender import Sender

__all__ = ["CollectorBatch", "Outbox", "TracingStats"]

_log: Final = logging.getLogger("veko.tracing")
_FULL: Final = 2**19
"""About how many bytes a request to the collector has at most."""
_INTERVAL: Final = 1.0
"""Seconds between two requests that are not full: each one costs 1 ms of CPU."""


class TracingStats(msgspec.Struct, frozen=True):
    """The numbers of spans since tracing was loaded.

    Attributes:
        recorded: Spans that were recorded and read, including those that plugins start.
        pending: Spans that wait to be read.
        dropped: Spans that were dropped, because too many waited or an output failed.
        sent: Spans that the collector accepted.
    """

    recorded: int
    pending: int
    dropped: int
    sent: int


class CollectorBatch:
    """Collects encoded spans into requests to a collector.

    Args:
        sender: The sender of the requests.
        scope: The resource and instrumentation scope of our spans.

    Attributes:
        sender: See above.
    """

    def __init__(self, sender: Sender, scope: Scope) -> None:
        self.sender = sender
        self._scope = scope
        self._parts: list[bytes] = []
        self._others: dict[bytes, list[bytes]] = {}
        self._size = 0
        self._spans = 0
        self._sent_at = 0.0

    def add_records(self, records: list[Record]) -> None:
        """Encode and add the spans of records."""
        before = len(self._parts)
        self._spans += encode(records, self._parts)
        self._grow(sum(map(len, self._parts[before:])))

    def add_span(self, scope: bytes, span: bytes) -> None:
        """Add an encoded span of another instrumentation scope."""
        self._others.setdefault(scope, []).append(span)
        self._spans += 1
        self._grow(len(span))

    def send_if_due(self) -> None:
        """Send what there is, if the last request was sent long enough ago."""
        if time.monotonic() - self._sent_at >= _INTERVAL:
            self.send()

    def send(self) -> None:
        """Hand what there is to the sender."""
        self._sent_at = time.monotonic()
        if self._spans:
            body = export_request(self._scope, self._parts, self._others)
            self.sender.put(body, self._spans)
            self._parts, self._others = [], {}
            self._size = self._spans = 0

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size >= _FULL:
            self.send()


class Outbox:
    """Where spans go when they have ended.

    Args:
        recorder: The recorder whose tape is read.
        collector: The requests to a collector, or `None`.
        replay: The processors of the application's provider, or `None`.
        keep: Called with rows to keep them in memory, or `None`.
        limit: How many spans of plugins may wait to be read.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        collector: CollectorBatch | None = None,
        replay: sdk.Replay | None = None,
        keep: Callable[[Iterable[Row]], None] | None = None,
        limit: int = 100_000,
    ) -> None:
        self._recorder = recorder
        self._collector = collector
        self._replay = replay
        self._keep = keep
        self._limit = limit
        self._received: deque[tuple[Row | None, tuple[bytes, bytes] | None]] = deque()
        self._read = 0
        self._refused = 0
        self._pump = Pump(recorder, self._after_reading)
        if collector is not None:
            self._pump.outputs.append(collector.add_records)
        if replay is not None:
            self._pump.outputs.append(replay)
        if keep is not None:
            self._pump.outputs.append(lambda records: keep(rows(records)))

    @property
    def ordinary(self) -> bool:
        """Whether the application's provider has processors that need ordinary spans."""
        return self._replay is not None and self._replay.ordinary()

    def stats(self) -> TracingStats:
        """Return the numbers of spans so far."""
        sender = None if self._collector is None else self._collector.sender
        dropped = self._recorder.dropped + self._refused + self._pump.failed
        return TracingStats(
            recorded=self._pump.recorded + self._read,
            pending=spans_of(self._recorder.tape) + len(self._received),
            dropped=dropped if sender is None else dropped + sender.dropped,
            sent=0 if sender is None else sender.sent,
        )

    async def run(self) -> None:
        """Read the tape again and again, until cancelled."""
        await self._pump.run()

    async def drain(self) -> None:
        """Read all that has been recorded."""
        await self._pump.drain()

    async def flush(self, seconds: float) -> bool:
        """Read all that has been recorded, and wait until the collector has it.

        Args:
            seconds: How long to wait at most.

        Returns:
            Whether nothing waits to be sent any more.
        """
        await self._pump.drain()
        if self._collector is None:
            return True
        self._collector.send()
        return await anyio.to_thread.run_sync(self._collector.sender.flush, seconds)

    async def close(self) -> None:
        """Send what is left, for a few seconds, and end the sender's thread."""
        await self._pump.drain()
        if self._collector is not None:
            self._collector.send()
            await anyio.to_thread.run_sync(self._collector.sender.close)
            stats = self.stats()
            if stats.dropped:
                _log.warning("%d of %d spans were dropped", stats.dropped, stats.recorded)

    def receive(self, span: ReadableSpan) -> None:
        """Take a span that a plugin started with OpenTelemetry; may be called on any thread.

        The span is encoded here rather than when it is read, because its end is in the plugin's own
        time, and a span of the SDK keeps alive whatever its attributes refer to.
        """
        if len(self._received) >= self._limit:
            self._refused += 1
            return
        try:
            row = None if self._keep is None else sdk.row_of(span)
            encoded = None if self._collector is None else sdk.encode_readable(span)
        except Exception:  # the plugin's code, which ends the span, must not fail because of us
            self._refused += 1
            return
        # A deque, because appending and popping are safe between threads without a lock.
        self._received.append((row, encoded))

    def _after_reading(self) -> None:
        """Hand on what plugins started themselves, and send what has waited for long enough."""
        while self._received:
            row, encoded = self._received.popleft()
            self._read += 1
            if row is not None and self._keep is not None:
                self._keep([row])
            if encoded is not None and self._collector is not None:
                self._collector.add_span(*encoded)
        if self._collector is not None:
            self._collector.send_if_due()

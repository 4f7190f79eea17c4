"""The pump: reads the tape in small slices on the event loop, and hands the records to the outputs.

A slice takes a fraction of a millisecond, and before each slice all other callbacks of the loop
get their turn, so that a burst of spans does not delay requests. An output that raises loses that
slice, which is counted and logged once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import anyio
import anyio.lowlevel

from ..recording.recorder import HIGH_WATER, Recorder
from ..recording.records import Record, spans_of

__all__ = ["Output", "Pump"]

_log: Final = logging.getLogger("veko.tracing")
SLICE: Final = 128
"""Records that are read at a time."""
INTERVAL: Final = 0.1
"""Seconds between two readings, unless the tape passes `HIGH_WATER` earlier.

What is read soon is still in the processor's cache, and the garbage collector has not walked it.
"""

Output = Callable[[list[Record]], None]


class Pump:
    """Reads a recorder's tape.

    Attributes:
        outputs: Called with each slice of records.
        after_reading: Called when the tape has been read.
        recorded: How many spans were read.
        failed: How many spans were in slices for which an output raised.
    """

    def __init__(self, recorder: Recorder, after_reading: Callable[[], None]) -> None:
        self.outputs: list[Output] = []
        self.after_reading = after_reading
        self.recorded = 0
        self.failed = 0
        self._recorder = recorder
        self._dropped = 0
        self._logged: set[str] = set()
        self._reading = anyio.Lock()

    async def run(self) -> None:
        """Read the tape again and again."""
        while True:
            high_water = anyio.Event()
            self._recorder.on_high_water = high_water.set
            with anyio.move_on_after(INTERVAL):
                await high_water.wait()
            await self.drain(HIGH_WATER // 2 if high_water.is_set() else 0)

    async def drain(self, left: int = 0) -> None:
        """Read the tape until at most `left` records are on it."""
        async with self._reading:
            tape = self._recorder.tape
            while len(tape) > left:
                # At high load each turn of the loop adds hundreds of records: read half of what is
                # there in one turn, or the tape would only grow.
                for _ in range(1 + len(tape) // (2 * SLICE)):
                    piece = tape[:SLICE]
                    del tape[:SLICE]
                    self._read(piece)
                await anyio.lowlevel.checkpoint()
            self.after_reading()
            self._log_dropped()

    def _read(self, piece: list[Record]) -> None:
        count = spans_of(piece)
        self.recorded += count
        for output in tuple(self.outputs):
            try:
                output(piece)
            except Exception as error:
                self.failed += count
                reason = f"{type(error).__name__}: {error}"
                self._log_once(f"spans are lost: {output!r} raised {reason}")

    def _log_once(self, message: str) -> None:
        key = message[:60]
        if key not in self._logged and len(self._logged) < 100:
            self._logged.add(key)
            _log.warning("%s. This is logged once", message)

    def _log_dropped(self) -> None:
        dropped = self._recorder.dropped
        if dropped != self._dropped:
            self._dropped = dropped
            self._log_once(
                f"spans arrive faster than they are read: {dropped} were dropped so far; "
                "`manager.use('tracing').stats()` has the current number"
            )

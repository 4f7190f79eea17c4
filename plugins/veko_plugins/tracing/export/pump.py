"""The pump: reads the tape in small slices on the event loop, and hands the spans on.

A slice takes a fraction of a millisecond, and every slice waits for its turn like anybody else's
callback, so a burst of spans is no pause for requests. An output that raises loses that slice,
counted, and is heard of once in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import anyio
import anyio.lowlevel

from ..recording.recorder import MANY, Recorder
from ..recording.records import Record, spans_of

__all__ = ["Output", "Pump"]

_log: Final = logging.getLogger("veko.tracing")
SLICE: Final = 128
"""Records that are read at a time: as often in a turn of the loop as half of them are gone, since
where requests come fast each turn brings hundreds."""
EVERY: Final = 0.1
"""Seconds between two looks at the tape, unless there is much on it: what is read soon is still in
the processor's cache, and the collector of garbage has not seen it."""

Output = Callable[[list[Record]], None]


class Pump:
    """Reads a recorder's tape.

    Attributes:
        outputs: Who gets the spans.
        turn: Called after each reading.
        recorded: Spans that were read.
        failed: Spans that an output did not take.
    """

    def __init__(self, recorder: Recorder, turn: Callable[[], None]) -> None:
        self.outputs: list[Output] = []
        self.turn = turn
        self.recorded = 0
        self.failed = 0
        self._recorder = recorder
        self._lost = 0
        self._told: set[str] = set()
        self._reading = anyio.Lock()

    async def run(self) -> None:
        """Read the tape again and again."""
        while True:
            much = anyio.Event()
            self._recorder.much = much.set
            with anyio.move_on_after(EVERY):
                await much.wait()
            await self.drain(MANY // 2 if much.is_set() else 0)

    async def drain(self, left: int = 0) -> None:
        """Read the tape until no more than so many records are left."""
        async with self._reading:
            tape = self._recorder.tape
            while len(tape) > left:
                for _ in range(1 + len(tape) // (2 * SLICE)):
                    piece = tape[:SLICE]
                    del tape[:SLICE]
                    self._read(piece)
                await anyio.lowlevel.checkpoint()
            self.turn()
            self._tell_lost()

    def _read(self, piece: list[Record]) -> None:
        count = spans_of(piece)
        self.recorded += count
        for output in tuple(self.outputs):
            try:
                output(piece)
            except Exception as error:
                self.failed += count
                self.complain(f"spans are lost: {output!r} raised {type(error).__name__}: {error}")

    def complain(self, line: str) -> None:
        """Log a line once."""
        key = line[:60]
        if key not in self._told and len(self._told) < 100:
            self._told.add(key)
            _log.warning("%s. This is said once", line)

    def _tell_lost(self) -> None:
        lost = self._recorder.lost
        if lost != self._lost:
            self._lost = lost
            self.complain(
                f"more spans come than can be read: {lost} were not recorded so far, "
                "`manager.use('tracing').stats()` counts on"
            )

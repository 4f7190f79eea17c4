"""Frames: `u32 total`, `u32 size`, JSON of that size, then a tail of bytes; big-endian.

`total` counts all that follows it. The sizes come from the other side: both are checked before
anything is kept for the frame. A buffer grows to the size of a frame when the frame is announced
and shrinks after it; memory that was not written to costs nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from .errors import Violation

__all__ = ["HEADER", "Frames", "frame"]

HEADER: Final = struct.Struct(">II")
_WORD: Final = 4
_ROOM: Final = 64 * 2**10
"""Bytes that a buffer has between large frames."""
_LEAST: Final = 4 * 2**10
"""Bytes that should be free for the next read."""


def frame(text: bytes, tail: Sequence[bytes | bytearray | memoryview] = ()) -> bytes:
    """Return a frame with this JSON and this tail."""
    if not tail:
        return HEADER.pack(_WORD + len(text), len(text)) + text
    size = sum(map(len, tail))
    return b"".join((HEADER.pack(_WORD + len(text) + size, len(text)), text, *tail))


class Frames:
    """Takes bytes as they arrive and gives them back as frames.

    Args:
        limit: The most bytes of JSON and tail that a frame may have.
        json_limit: The most bytes of JSON among them.

    Attributes:
        buffer: What the bytes of a frame are in, until `next` or `space` is called again.
    """

    __slots__ = ("_end", "_start", "buffer", "json_limit", "limit")

    def __init__(self, limit: int, json_limit: int) -> None:
        self.limit = limit
        self.json_limit = json_limit
        self.buffer = bytearray(_ROOM)
        self._start = self._end = 0

    def space(self) -> memoryview:
        """Return where the next bytes are to be written; it is never empty."""
        return memoryview(self.buffer)[self._end :]

    def written(self, count: int) -> None:
        """Count bytes that were written to `space`."""
        self._end += count

    def feed(self, data: bytes) -> None:
        """Copy bytes in; they may be more than `space` has."""
        if len(self.buffer) - self._end < len(data):
            self._move(self._end - self._start + len(data))
        self.buffer[self._end : self._end + len(data)] = data
        self._end += len(data)

    def next(self) -> tuple[int, int, int] | None:
        """Return where the JSON of the next frame starts, where it ends, and where the tail ends.

        Returns:
            Positions in `buffer`; `None` if the frame is not complete.

        Raises:
            Violation: A size in the header is wrong.
        """
        start, have = self._start, self._end - self._start
        if have < HEADER.size:
            if have == 0:
                self._shrink()
            self._make_room(HEADER.size)
            return None
        total, size = HEADER.unpack_from(self.buffer, start)
        if total > self.limit + _WORD:
            raise Violation(
                f"sent a frame of {total - _WORD} bytes, at most {self.limit} are allowed"
            )
        if size > total - _WORD:
            raise Violation(
                f"sent a frame of {total} bytes that claims to hold {size} bytes of JSON"
            )
        if size > self.json_limit:
            raise Violation(
                f"sent {size} bytes of JSON in one frame, at most {self.json_limit} are allowed"
            )
        if have < _WORD + total:
            self._make_room(_WORD + total)
            return None
        text = start + HEADER.size
        self._start = start + _WORD + total
        return text, text + size, self._start

    def _make_room(self, size: int) -> None:
        """Make room for a frame of this size that begins at `_start`."""
        if self._start + size > len(self.buffer) or self._end > len(self.buffer) - _LEAST:
            self._move(max(size, _ROOM))

    def _shrink(self) -> None:
        self._start = self._end = 0
        if len(self.buffer) > _ROOM:
            self.buffer = bytearray(_ROOM)

    def _move(self, size: int) -> None:
        kept = self.buffer[self._start : self._end]
        if size > len(self.buffer):
            self.buffer = bytearray(size)
        self.buffer[: len(kept)] = kept
        self._start, self._end = 0, len(kept)

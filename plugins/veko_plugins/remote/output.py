"""Output: what a worker prints goes to its plugin's log, at a bounded rate.

A worker that prints without end must cost the host next to nothing: beyond so many lines a second
they are counted in bulk and dropped, and the count is logged. The pipe is read all the same: a
worker whose output nobody reads would stand still.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Output", "Throttle"]

LINES: Final = 200
"""Lines a second that are logged."""
_SECOND: Final = 1.0
_LONGEST: Final = 2_000
"""Bytes of a line that are logged."""
_CHUNK: Final = 2**16
_LAST_LINES: Final = 10


class Throttle:
    """Lets so many things pass in a second, counts the others and reports them.

    Args:
        report: Is called with how many did not pass, at the end of that second.
        most: How many pass in a second.
    """

    def __init__(self, report: Callable[[int], None], *, most: int = LINES) -> None:
        self._report = report
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._start = 0.0
        self._passed = 0
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None

    def passes(self) -> bool:
        """Return whether one more passes."""
        if self.room():
            self._passed += 1
            return True
        self.hold(1)
        return False

    def room(self) -> int:
        """Return how many more pass now."""
        now = self._loop.time()
        if now - self._start >= _SECOND:
            self._start, self._passed = now, 0
        return max(0, self._most - self._passed)

    def hold(self, count: int) -> None:
        """Count things that do not pass."""
        self._held += count
        if self._timer is None:
            self._timer = self._loop.call_at(self._start + _SECOND, self.flush)

    def flush(self) -> None:
        """Report at once what did not pass."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, 0
        if held:
            self._report(held)


class Output:
    """Reads the pipe that a worker prints to.

    Args:
        descriptor: The end that is read; the output owns it from here on.
        log: Gets each line.
        dropped: Gets the number of lines that were not logged.
        most: Lines a second that are logged.

    Attributes:
        last: The last lines, logged or not.
    """

    def __init__(
        self,
        descriptor: int,
        log: Callable[[str], None],
        dropped: Callable[[int], None],
        *,
        most: int = LINES,
    ) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor
        self._log = log
        self._throttle = Throttle(dropped, most=most)
        self._rest = b""
        self._cut = False  # the rest of an overlong line is still to come
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def catch_up(self) -> None:
        """Log what the pipe holds now."""
        for _ in range(2**20 // _CHUNK):  # a pipe holds no more than that
            if self._descriptor is None or not self._read():
                break

    def drain(self) -> None:
        """Log what the pipe holds now, and close it: the worker has ended."""
        self.catch_up()
        self.close()

    def close(self) -> None:
        """Close the pipe; may be called twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
            self._take([self._rest])
            self._throttle.flush()

    def _read(self) -> bool:
        assert self._descriptor is not None
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        # One line more than there is room for: what is behind it is counted, not split.
        room = self._throttle.room()
        *lines, rest = (self._rest + data).split(b"\n", room + 1)
        if len(lines) > room:
            body, _, rest = rest.rpartition(b"\n")
            self._throttle.hold(body.count(b"\n") + (1 if body else 0))
        if self._cut and lines:
            del lines[0]
            self._cut = False
        if len(rest) > _LONGEST:
            if not self._cut:
                lines.append(rest[:_LONGEST])
            self._cut, rest = True, b""
        elif self._cut:
            rest = b""
        self._rest = rest
        self._take(lines)
        return True

    def _take(self, lines: list[bytes]) -> None:
        for line in lines:
            if text := line[:_LONGEST].decode("utf-8", "replace").rstrip():
                self.last.append(text)
                if self._throttle.passes():
                    self._log(text)

"""Where lines go: what all handlers share, and the console.

A line that cannot be written is counted. The first one is reported through the other handlers, and
when writing works again, the number of lost records is written where they are missing.

Promise: a handler never raises, whatever the formatter or the stream does; and it never writes one
line into another: a record that is logged while this thread writes one (by a signal handler, by
`__del__`) follows it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import Final, TextIO

from .formats import TextFormatter, level_of

__all__ = ["Console", "Sink", "console"]

_log: Final = logging.getLogger("veko.logging")
_MOST_WAITING: Final = 1_000
_PATIENCE: Final = 0.1
"""Seconds to wait for a console that takes no more."""
_STYLES: Final = {
    "debug": "dim",
    "success": "green",
    "warning": "yellow",
    "error": "bold red",
    "critical": "bold red",
}


class Sink(logging.Handler, ABC):
    """A handler that counts what it loses.

    Args:
        where: What it writes to, for the message.

    Attributes:
        lost: How many records were not written.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.lost = 0
        self._gap = 0  # lost since writing failed last
        self._why = ""
        self._unsaid = False
        self._writer = 0
        self._waiting: deque[logging.LogRecord] = deque()

    @abstractmethod
    def write(self, line: str, record: logging.LogRecord) -> None:
        """Write a line.

        Raises:
            Exception: It was not written, or not wholly.
        """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the caller holds the handler's lock, which this thread may enter again.

        test_a_record_that_is_logged_while_one_is_written_follows_it
        """
        thread = threading.get_ident()
        if self._writer == thread:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append(record)
            else:
                self.lost += 1
            return
        self._writer = thread
        try:
            self._put(record)
            while self._waiting:
                self._put(self._waiting.popleft())
        finally:
            self._writer = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record if the filters let it pass, and report the first failure.

        That is done without the lock: two handlers may have to report at the same time.
        """
        passed = super().handle(record)
        if self._unsaid:
            self._unsaid = False
            _log.error(
                "log records are being lost: %s cannot be written: %s",
                self.where, self._why, extra={"sink": self},
            )  # fmt: skip
        return bool(passed)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Do nothing: the standard library's would print to standard error."""

    def _put(self, record: logging.LogRecord) -> None:
        if getattr(record, "sink", None) is self:
            return
        try:
            if self._gap:
                self._resume()
            self.write(self._formatted(record), record)
        except Exception as error:
            if not self._gap:
                self._unsaid = True
            self._gap += 1
            self.lost += 1
            reason = error.strerror if isinstance(error, OSError) else None
            self._why = reason or f"{type(error).__name__}: {error}"

    def _formatted(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as error:
            plain = logging.makeLogRecord(
                {"name": str(record.name), "levelno": record.levelno, "levelname": "ERROR"}
            )
            plain.msg = f"a record cannot be formatted: {type(error).__name__}"
            return self.format(plain)

    def _resume(self) -> None:
        """Write how many records are missing here; raises if that is not possible yet."""
        text = f"{self._gap} log records are missing here: {self.where} could not be written"
        gap = logging.makeLogRecord(
            {
                "name": _log.name, "levelno": logging.ERROR, "levelname": "ERROR",
                "msg": f"{text}: {self._why}", "lost": self._gap,
            }
        )  # fmt: skip
        self.write(self.format(gap), gap)
        self._gap = 0


class Console(Sink):
    """Writes to a stream.

    A real file gets each line in one write, so that lines of several processes on one pipe or
    terminal are not mixed, and a signal handler cannot meet Python's buffer half-written.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(str(getattr(stream, "name", "") or "the console").strip("<>"))
        self._stream = stream
        self._torn = False
        try:
            self._descriptor = stream.fileno()
        except (OSError, AttributeError, io.UnsupportedOperation, ValueError):
            self._descriptor = -1
        self.addFilter(_not_printed)

    def write(self, line: str, record: logging.LogRecord) -> None:
        if self._descriptor < 0 or self._stream.closed:
            self._stream.write(f"{line}\n")
            self._stream.flush()
            return
        self._stream.flush()
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        data = f"{line}\n".encode(encoding, "backslashreplace")
        if self._torn:
            data = b"\n" + data
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._some(rest) :]
        finally:
            self._torn = 0 < len(rest) < len(data) or (self._torn and len(rest) == len(data))

    def _some(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # somebody has made the pipe non-blocking, and it is full
            if not select.select((), (self._descriptor,), (), _PATIENCE)[1]:
                raise
            return os.write(self._descriptor, data)


def _not_printed(record: logging.LogRecord) -> bool:
    """Return whether a record still has to be shown: the command line prints some lines itself."""
    return not getattr(record, "printed", False)


def console(stream: TextIO, formatter: logging.Formatter) -> Sink:
    """Return the handler for a console; a terminal gets colours where rich is installed."""
    handler: Sink | None = None
    with contextlib.suppress(ImportError, OSError, ValueError):
        if isinstance(formatter, TextFormatter) and stream.isatty():
            handler = _styled(stream)
    handler = handler or Console(stream)
    handler.setFormatter(formatter)
    return handler


def _styled(stream: TextIO) -> Sink:
    """Return a console handler with colours; raises `ImportError` if rich is not installed."""
    from rich.console import Console as RichConsole
    from rich.text import Text

    rich = RichConsole(file=stream)

    class Styled(Console):
        def write(self, line: str, record: logging.LogRecord) -> None:
            rich.print(Text(line, style=_STYLES.get(level_of(record), "")), soft_wrap=True)

    return Styled(stream)

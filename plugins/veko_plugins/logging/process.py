"""The logging of a whole process: root logger, warnings, uncaught exceptions, standard error.

`veko serve` is a process of its own, so that everything in it is logged: with JSON, every line on
standard error is an object. What an embedding application has set up is not touched.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, TextIO

__all__ = ["ProcessLogs"]

_log: Final = logging.getLogger("veko.process")
_LONGEST: Final = 16_384
_SERVERS: Final = {"uvicorn.error": logging.WARNING, "_granian": logging.ERROR}


class ProcessLogs:
    """Handlers on the root logger, and what brings the rest of the process to them.

    Args:
        handlers: The handlers.
        level: The level of Veko and its plugins; other loggers have that of warnings, or this if
            it is higher.
        stream: Standard error is made lines of this if given: then what is printed to it becomes
            records.
    """

    def __init__(
        self, handlers: Iterable[logging.Handler], level: int, stream: TextIO | None
    ) -> None:
        self._handlers = tuple(handlers)
        self._stream = stream
        self._undo: list[Callable[[], object]] = []
        self.levels = {
            "": max(level, logging.WARNING),
            "veko": level,
            "veko_generation": level,
            **{name: max(level, one) for name, one in _SERVERS.items()},
        }

    def install(self) -> None:
        """Set all of it up."""
        root = logging.getLogger()
        for handler in self._handlers:
            root.addHandler(handler)
            self._undo.append(lambda handler=handler: root.removeHandler(handler))  # type: ignore[misc]
        for name, level in self.levels.items():
            logger = logging.getLogger(name)
            self._undo.append(lambda logger=logger, former=logger.level: logger.setLevel(former))  # type: ignore[misc]
            logger.setLevel(level)
        if warnings.showwarning.__module__ != "logging":
            logging.captureWarnings(True)
            self._undo.append(lambda: logging.captureWarnings(False))
        self._hook(sys, "excepthook", _uncaught)
        self._hook(threading, "excepthook", _uncaught_in_thread)
        self._hook(sys, "unraisablehook", _unraisable)
        if self._stream is not None:
            self._hook(sys, "stderr", _Lines(self._stream, self._handlers))

    def remove(self) -> None:
        """Put everything back."""
        while self._undo:
            self._undo.pop()()

    def _hook(self, module: Any, name: str, new: object) -> None:
        former = getattr(module, name)
        setattr(module, name, new)

        def undo() -> None:
            if getattr(module, name) is new:
                setattr(module, name, former)

        self._undo.append(undo)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _report("an exception was not caught", error)


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread is not None else "?"
    _report(f"the thread {name} ended with an exception", args.exc_value)


def _unraisable(args: Any) -> None:
    what = args.err_msg or "an exception was ignored in"
    try:
        where = repr(args.object)[:500]
    except Exception:  # it may be half gone
        where = type(args.object).__name__
    _report(f"{what}: {where}", args.exc_value or args.exc_type())


def _report(text: str, error: BaseException | None) -> None:
    if error is None:
        _log.error("%s", text)
        return
    try:
        shown = str(error)
    except Exception as broken:
        shown = f"({type(broken).__name__} in its __str__)"
    trace = (type(error), error, error.__traceback__)
    _log.error(
        "%s: %s: %s", text, type(error).__name__, shown, exc_info=trace, extra={"traced": True}
    )


class _Lines(io.TextIOBase):
    """Standard error, whose lines become records of the logger `stderr`.

    They go to our handlers only: another handler that writes to standard error would otherwise be
    asked to log what it has just written.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, stream: TextIO, handlers: Iterable[logging.Handler]) -> None:
        self._stream = stream
        self._handlers = tuple(handlers)
        self._begun = threading.local()

    def write(self, text: str) -> int:
        """Log each line that is complete."""
        *lines, rest = f"{getattr(self._begun, 'text', '')}{text}".split("\n")
        if len(rest) > _LONGEST:
            lines.append(rest)
            rest = ""
        self._begun.text = rest
        for line in lines:
            self._emit(line)
        return len(text)

    def flush(self) -> None:
        """Log what has been written of a line."""
        rest, self._begun.text = getattr(self._begun, "text", ""), ""
        self._emit(rest)

    def fileno(self) -> int:
        """Return the descriptor of the real stream, for subprocesses."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return false: nothing is coloured."""
        return False

    def writable(self) -> bool:
        """Return true."""
        return True

    @property
    def buffer(self) -> Any:
        """The real stream's."""
        return self._stream.buffer

    def _emit(self, line: str) -> None:
        if not line.strip():
            return
        record = logging.getLogger("stderr").makeRecord(
            "stderr", logging.WARNING, "", 0, "%s", (line.rstrip(),), None
        )
        for handler in self._handlers:
            handler.handle(record)

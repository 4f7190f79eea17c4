"""Runs a command's coroutine: signals stop it in bounded time, errors are printed as one line.

SIGINT and SIGTERM stop it. SIGHUP is an event for the command that serves, and stops it if the
terminal that started it is gone.

Signals have Python handlers, not the loop's: these run even while a plugin blocks the loop, and a
thread then ends the process when the grace period is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Final

import rich_click as click

from veko import VekoError
from veko.errors import text_of
from veko.extend import location_of
from veko_plugins._lib.masking import masked_text

from .ends import Owned, drive
from .lines import lines

if TYPE_CHECKING:
    from veko_plugins.logging import Logging

__all__ = [
    "Quit",
    "Stop",
    "held_back",
    "kernel_quiet",
    "print_error",
    "reasons",
    "run",
    "run_quiet",
]

_MOST_HELD: Final = 1_000


class Stop:
    """What signals do to a command's coroutine.

    Attributes:
        asked: Set at the first signal that stops.
        gently: Whether setting `asked` is all that happens; otherwise the coroutine is cancelled.
        refresh: Set at each SIGHUP.
        at_once: Called before the process is ended without waiting.
        closing_by: When everything is to have ended, by `time.monotonic()`; `None` until then.
        suspects: Names the plugins, for a failure that does not show where it comes from.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.gently = False
        self.refresh = asyncio.Event()
        self.at_once: Callable[[], object] = _nothing
        self.closing_by: float | None = None
        self.suspects: Callable[[], str] = _plugins


Work = Callable[[Stop], Coroutine[object, object, int]]


class Quit(Exception):
    """Ends a command with an exit code; its message has already been printed."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _nothing() -> None:
    """Do nothing: there are no other processes to end."""


def _plugins() -> str:
    return "the plugins"


class _Signals:
    """Stops at the first signal; ends the process at the second, or after the grace period."""

    def __init__(
        self,
        task: asyncio.Task[int],
        stop: Stop,
        grace: float,
        message: str | None,
        *,
        second_kills: bool,
    ) -> None:
        self.number: int | None = None
        self._second_kills = second_kills
        self._terminal = os.isatty(0)
        self._task = task
        self._loop = task.get_loop()
        self._stop = stop
        self._message = message
        self._grace = grace
        self._timer = threading.Timer(grace, self._force)
        self._timer.daemon = True

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM inside, and after one of them until the process exits.

        A thread that a plugin left running, if it is not a daemon, may delay that exit.
        """
        former = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        if self._message is not None and hasattr(signal, "SIGHUP"):
            former[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._on_hangup)
        try:
            yield
        finally:
            if self.number is None:
                for number, handler in former.items():
                    signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            if self._second_kills:
                self._stop.at_once()
                os._exit(128 + number)
            return
        self.number = number
        self.end_in_time()
        self._loop.call_soon_threadsafe(self._ask)

    def end_in_time(self) -> None:
        """Begin the grace period, unless it has begun."""
        if self._stop.closing_by is None:
            # A little before the end of the process, so that what hangs is cut off in order.
            self._stop.closing_by = time.monotonic() + 0.9 * self._grace
            self._timer.start()

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        if self._terminal and not os.isatty(0):
            self._on_signal(number, frame)
        else:
            self._loop.call_soon_threadsafe(self._stop.refresh.set)

    def _ask(self) -> None:
        self._stop.asked.set()
        if not self._stop.gently:
            self._task.cancel()
        if self._message:
            with contextlib.suppress(OSError):  # the reader of a pipe may be gone
                lines.say(self._message)

    def _force(self) -> None:
        self._stop.at_once()
        lines.last_words("veko: it did not stop in time, so it was ended; a plugin may block it")
        os._exit(1)


def run(
    work: Work,
    *,
    debug: bool,
    grace: float = 10.0,
    on_stop: str | None = None,
    second_kills: bool = True,
    report: Callable[[BaseException], object] | None = None,
) -> int:
    """Run a coroutine on a fresh loop (uvloop where installed) and return its exit code.

    Args:
        work: Returns the coroutine; gets what signals do to it.
        debug: Whether errors are shown with their traceback.
        grace: The longest time between a signal and the end of the process, in seconds.
        on_stop: Text to print at a signal (empty: nothing); stopping then counts as success.
            Without it, a signal gives the exit code 128 plus its number.
        second_kills: Whether a second signal ends the process at once.
        report: Reports an error; by default `print_error`.

    Returns:
        The exit code: that of the coroutine, or 1 if it raised.
    """

    stops: list[Stop] = []

    async def stoppable() -> int:
        stop = Stop()
        stops.append(stop)
        task = Owned(work(stop), loop=asyncio.get_running_loop())
        signals = _Signals(task, stop, grace, on_stop, second_kills=second_kills)
        task.on_stray = signals.end_in_time
        with signals.handled():
            try:
                return await task
            except asyncio.CancelledError:
                if signals.number is None:
                    where = f" at {task.cancelled_at}" if task.cancelled_at else ""
                    lines.say(
                        f"veko: the command was cancelled{where}, and has ended in order. A plugin "
                        "may cancel its own tasks only.",
                        "error",
                    )
                    return 1
                return 0 if on_stop is not None else 128 + signals.number

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return drive(runner.get_loop(), stoppable(), lambda: stops[0].suspects())
    except Quit as done:
        return done.code
    except BrokenPipeError:  # `veko list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if report is not None:
            report(error)
        else:
            print_error(error, debug=debug)
        return 1


def print_error(error: BaseException, *, debug: bool) -> None:
    """Print an error, as one line for each error in a group; with `debug`, the traceback too."""
    if debug and not lines.json:
        click.echo(masked_text("".join(traceback.format_exception(error))), err=True, nl=False)
    for line in reasons(error, debug=debug):
        lines.say(f"veko: {line}", "error", error=error if debug else None)


def reasons(error: BaseException, *, debug: bool) -> Iterator[str]:
    """Yield one line for an error, or for each error in a group."""
    for leaf in _leaves(error):
        if isinstance(leaf, VekoError):
            yield masked_text(str(leaf))
        else:
            found = location_of(leaf)
            hint = "" if debug else " (veko --debug shows where)"
            where = hint if found is None else f" (file {found.path}:{found.line})"
            yield masked_text(f"{type(leaf).__name__}: {text_of(leaf)}{where}")


@contextlib.contextmanager
def held_back(debug: bool) -> Iterator[Callable[[Collection[str]], None]]:
    """Hold the kernel's log records back, until it is known which failures the command reports.

    Args:
        debug: Whether to hold back nothing.

    Yields:
        A function that writes them, except those about the plugins that it is given. What is left
        at the end is written if the block ended without an error, which tells the same.
    """
    logger = logging.getLogger("veko")
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        if debug or len(held) >= _MOST_HELD:
            return True
        held.append(record)
        return False

    def write(reported: Collection[str]) -> None:
        logger.removeFilter(hold)
        records, held[:] = list(held), []
        for record in records:
            if getattr(record, "veko_plugin", None) not in reported:
                logger.handle(record)

    logger.addFilter(hold)
    try:
        yield write
        write(())
    finally:
        logger.removeFilter(hold)


@contextlib.contextmanager
def kernel_quiet(*, debug: bool) -> Iterator[None]:
    """Drop the kernel's own log records: the command itself reports what failed, once."""
    logger = logging.getLogger("veko")  # its filters do not apply to the loggers of plugins

    def drop(_: logging.LogRecord) -> bool:
        return debug

    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)


def run_quiet(
    logs: Logging,
    work: Work,
    level: str,
    *,
    debug: bool,
    loggers: Mapping[str, str | int | None] | None = None,
) -> int:
    """Run a command that reports by itself what fails; return the exit code.

    Args:
        logs: The log, which is written to standard error meanwhile.
        work: The command.
        level: From which level on records are shown.
        debug: Whether all records are shown, and errors with their traceback.
        loggers: The levels of some loggers.
    """
    logs.configure("debug" if debug else level, loggers=loggers)
    try:
        with kernel_quiet(debug=debug):
            return run(work, debug=debug)
    finally:
        logs.reset()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop

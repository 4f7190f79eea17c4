"""Running a command's coroutine: signals that stop it in bounded time, errors that are one line.

SIGINT and SIGTERM stop; SIGHUP is an event for the command that serves, and a stop where the
terminal that the command was started from is gone.

Signals are heard by Python handlers, not by the loop's: those run even while a plugin blocks the
loop, and a thread then ends the process when the grace is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType

import rich_click as click

from veko import VekoError

__all__ = ["Quit", "Stop", "complain", "kernel_quiet", "reasons", "run"]


class Stop:
    """What a signal asks of a command's coroutine.

    Attributes:
        asked: Set at the first signal.
        gently: Whether setting `asked` is all that happens; otherwise the coroutine is cancelled.
        refresh: Set at each SIGHUP.
        at_once: Called before the process ends without waiting any more.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.gently = False
        self.refresh = asyncio.Event()
        self.at_once: Callable[[], object] = _nothing


Work = Callable[[Stop], Coroutine[object, object, int]]


class Quit(Exception):
    """Ends a command with a code; what there was to say has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _nothing() -> None:
    """There is nobody else to end."""


class _Signals:
    """Asks to stop at the first signal, ends the process at the second or after the grace."""

    def __init__(
        self, task: asyncio.Task[int], stop: Stop, grace: float, say: str | None, *, insists: bool
    ) -> None:
        self.number: int | None = None
        self._insists = insists
        self._terminal = os.isatty(0)
        self._task = task
        self._loop = task.get_loop()
        self._stop = stop
        self._say = say
        self._timer = threading.Timer(grace, self._force)
        self._timer.daemon = True

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Hear SIGINT and SIGTERM inside; after one, to the end of the process.

        What plugins left running (a thread that is not a daemon) may hold up its exit.
        """
        former = {
            number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)
        }
        if self._say is not None and hasattr(signal, "SIGHUP"):
            former[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        try:
            yield
        finally:
            if self.number is None:
                for number, handler in former.items():
                    signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            if self._insists:
                self._stop.at_once()
                os._exit(128 + number)
            return
        self.number = number
        self._timer.start()
        self._loop.call_soon_threadsafe(self._ask)

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        if self._terminal and not os.isatty(0):
            self._hear(number, frame)
        else:
            self._loop.call_soon_threadsafe(self._stop.refresh.set)

    def _ask(self) -> None:
        self._stop.asked.set()
        if not self._stop.gently:
            self._task.cancel()
        if self._say:
            with contextlib.suppress(OSError):  # nobody may be reading any more
                click.echo(self._say)

    def _force(self) -> None:
        self._stop.at_once()
        os.write(2, b"veko: it did not stop in time and was ended; a plugin may block the loop\n")
        os._exit(1)


def run(
    work: Work,
    *,
    debug: bool,
    grace: float = 10.0,
    stops: str | None = None,
    insists: bool = True,
    tell: Callable[[BaseException], object] | None = None,
) -> int:
    """Run a coroutine on a fresh loop (uvloop where installed) and return its exit code.

    Args:
        work: Returns the coroutine, given what a signal does to it.
        debug: Whether errors come with their traceback.
        grace: Seconds between a signal and the end of the process, at most.
        stops: What is said at a signal (nothing if empty), which then is a success; without it a
            signal gives 128 and its number.
        insists: Whether a second signal ends the process at once.
        tell: Says what went wrong; `complain` if left out.
    """

    async def stoppable() -> int:
        stop = Stop()
        task = asyncio.ensure_future(work(stop))
        signals = _Signals(task, stop, grace, stops, insists=insists)
        with signals.heard():
            try:
                return await task
            except asyncio.CancelledError:
                if signals.number is None:
                    raise
                return 0 if stops is not None else 128 + signals.number

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(stoppable())
    except Quit as done:
        return done.code
    except BrokenPipeError:  # `veko list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if tell is not None:
            tell(error)
        else:
            complain(error, debug=debug)
        return 1


def complain(error: BaseException, *, debug: bool) -> None:
    """Say what went wrong, in one line an error."""
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    for line in reasons(error, debug=debug):
        click.echo(f"veko: {line}", err=True)


def reasons(error: BaseException, *, debug: bool) -> Iterator[str]:
    """Say what went wrong, in one line an error."""
    for leaf in _leaves(error):
        if isinstance(leaf, VekoError):
            yield str(leaf)
        else:
            hint = "" if debug else " (veko --debug shows where)"
            yield f"{type(leaf).__name__}: {leaf}{hint}"


@contextlib.contextmanager
def kernel_quiet(*, debug: bool) -> Iterator[None]:
    """Keep the kernel's own records out of the log: what failed is told by the command, once."""
    logger = logging.getLogger("veko")  # its filters do not touch the loggers of plugins

    def drop(_: logging.LogRecord) -> bool:
        return debug

    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)


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

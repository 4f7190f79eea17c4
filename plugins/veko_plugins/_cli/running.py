"""Running a command's coroutine: signals that stop it in bounded time, errors that are one line.

Signals are taken by Python handlers, not by the loop's: those still run when a plugin has
blocked the loop, and a thread then ends the process when the grace is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType

import rich_click as click

from veko import VekoError

__all__ = ["Quit", "complain", "run"]

Work = Callable[[], Coroutine[object, object, int]]


class Quit(Exception):
    """Ends a command with a code; what there was to say has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Stopper:
    """Cancels a task at the first signal, ends the process at the second or after the grace."""

    def __init__(self, task: asyncio.Task[int], grace: float, say: str | None) -> None:
        self.number: int | None = None
        self._task = task
        self._loop = task.get_loop()
        self._say = say
        self._timer = threading.Timer(grace, self._force)
        self._timer.daemon = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        former = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            self._timer.cancel()
            for number, handler in former.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        self._timer.start()
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._say is not None:
            click.echo(self._say)
        self._task.cancel()

    def _force(self) -> None:
        os.write(2, b"veko: it did not stop in time and was ended; something blocks the loop\n")
        os._exit(1)


def run(work: Work, *, debug: bool, grace: float = 10.0, stops: str | None = None) -> int:
    """Run a coroutine on a fresh loop (uvloop where installed) and return its exit code.

    Args:
        work: Returns the coroutine.
        debug: Whether errors come with their traceback.
        grace: Seconds between a signal and the end of the process, at most.
        stops: What is said at a signal, which then is a success; without it a signal gives 128 and
            its number.
    """

    async def stoppable() -> int:
        task = asyncio.ensure_future(work())
        stopper = _Stopper(task, grace, stops)
        with stopper.listening():
            try:
                return await task
            except asyncio.CancelledError:
                if stopper.number is None:
                    raise
                return 0 if stops is not None else 128 + stopper.number

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(stoppable())
    except Quit as done:
        return done.code
    except Exception as error:
        complain(error, debug=debug)
        return 1


def complain(error: BaseException, *, debug: bool) -> None:
    """Say what went wrong, in one line an error."""
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    for leaf in _leaves(error):
        if isinstance(leaf, VekoError):
            click.echo(f"veko: {leaf}", err=True)
        else:
            hint = "" if debug else " (veko --debug shows where)"
            click.echo(f"veko: {type(leaf).__name__}: {leaf}{hint}", err=True)


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

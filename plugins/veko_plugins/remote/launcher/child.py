"""What a forked process does before the worker's code runs; a failure names its step."""

import contextlib
import fcntl
import importlib
import os
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import confine, native, warden
from .messages import Command, Start

_HIGH = 1 << 8
"""Descriptors are first moved above this number, so that none is overwritten by another."""
_LONGEST_REPORT = 4_000


class Fork(BaseException):
    """Unwinds the launcher's stack in a forked process.

    Args:
        run: What the process does instead; its result is the exit status.
    """

    def __init__(self, run: Callable[[], int]) -> None:
        self.run = run


class Reporter:
    """Writes to a pipe which pid this process has, and why it could not start.

    When the reader sees the pipe's end, the worker is about to run: a program that is executed
    closes it.

    Args:
        descriptor: The pipe's end for writing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    @contextlib.contextmanager
    def step(self, name: str) -> Generator[None]:
        """End the process if the block fails, and report it as this step."""
        try:
            yield
        except Exception as error:
            number = (error.errno or 0) if isinstance(error, OSError) else 0
            reason = str(error) if number else f"{type(error).__name__}: {error}"
            text = f"{number}\n{name}\n{reason}"[:_LONGEST_REPORT]
            os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))
            os._exit(127)

    def move(self, descriptor: int) -> None:
        """Give the pipe this number."""
        os.dup2(self._descriptor, descriptor, inheritable=False)
        os.close(self._descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Report that the worker runs."""
        os.close(self._descriptor)


def run(
    start: Start, descriptors: Sequence[int], reported: int, folder: Path | None, launcher: int
) -> int:
    """Become the worker.

    Args:
        start: What the host asked for.
        descriptors: stdio, stderr and the others.
        reported: The end for writing of the pipe to the launcher.
        folder: The private working folder, if the command names none.
        launcher: The pid of the launcher's process.

    Returns:
        The exit status of a Python function; a program never returns.
    """
    if warden.is_needed(start):
        warden.guard(launcher)
    else:
        native.end_with_parent(launcher, signal.SIGKILL)
    os.setsid()
    reporter = Reporter(reported)
    command, environment = start.command, dict(start.command.env)
    with reporter.step("arrange the descriptors"):
        _arrange(descriptors, command.prints, reporter)
    working = command.cwd if folder is None else folder
    assert working is not None
    if folder is not None:
        environment = {"HOME": str(folder), "TMPDIR": str(folder)} | environment
    with reporter.step(f"enter the working folder {working}"):
        os.chdir(working)
    _default_signals()
    if start.confinement is not None:
        with reporter.step("be confined"):
            confine.confine(start.confinement, folder, executes=command.argv is not None)
    if command.argv is not None:
        _execute(command, environment, reporter)
    return _call(command, environment, reporter)


def _arrange(descriptors: Sequence[int], prints: str, reporter: Reporter) -> None:
    """Give stdio, stderr and the others the numbers that the worker expects; close the rest."""
    stdio, stderr, *others = (fcntl.fcntl(d, fcntl.F_DUPFD_CLOEXEC, _HIGH) for d in descriptors)
    printed = stderr if prints == "stderr" else stdio
    for number, descriptor in enumerate((stdio, printed, stderr, *others)):
        os.dup2(descriptor, number)
    os.set_blocking(0, True)  # the host may have made its ends of the pairs before it shared them
    os.set_blocking(2, True)
    reporter.move(3 + len(others))
    os.closerange(4 + len(others), os.sysconf("SC_OPEN_MAX"))


def _default_signals() -> None:
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _execute(command: Command, environment: dict[str, str], reporter: Reporter) -> NoReturn:
    assert command.argv is not None
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores the last two
    with reporter.step(f"execute {command.argv[0]}"):
        os.execve(command.argv[0], command.argv, environment)
    raise AssertionError("an executed program does not return")


def _call(command: Command, environment: dict[str, str], reporter: Reporter) -> int:
    assert command.entry is not None
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [command.entry]
    module, _, name = command.entry.partition(":")
    with reporter.step(f"import {command.entry}"):
        function: Callable[[], Any] = getattr(importlib.import_module(module), name)
    reporter.close()
    return int(function() or 0)

"""The terminal of `veko debug`: ptpython reads the code, and the application runs it.

Ctrl+C cancels the code that runs; a second one leaves an application that does not answer. Code
that blocks an application in this very process is interrupted where it stands.
"""

from __future__ import annotations

import ast
import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import rich_click as click
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from ptpython.python_input import PythonInput

from veko import StateError
from veko_plugins._lib.private_files import create_private
from veko_plugins.console import Connection, Done

__all__ = ["Terminal"]

_PATIENCE = 2.0
"""Seconds that completion waits for the application."""
_HINT = 1.0
"""Seconds from Ctrl+C until the console says how to leave."""


class Terminal:
    """A console in a terminal.

    Args:
        connection: The console.
        plugin: The plugin that it looks into.
        root: The application's directory, for the history.
    """

    def __init__(self, connection: Connection, plugin: str, root: Path) -> None:
        self._connection = connection
        self._plugin = plugin
        self._history = _history(root)
        self._presses = 0
        self._given_up: asyncio.Future[Done] | None = None

    async def run(self) -> int:
        """Read and run code until the user leaves; return the exit code."""
        opened = self._connection.opened
        click.echo(
            f"Veko {opened.version}, process {opened.pid}, plugin {self._plugin}. "
            f"Names: {', '.join(opened.names)}. `await` works; Ctrl+D leaves."
        )
        reader = _Input(
            history_filename=self._history,
            _completer=_Completer(self._connection, asyncio.get_running_loop()),
        )
        reader.confirm_exit = False
        reader.enable_system_bindings = False
        reader.show_status_bar = False
        with self._interrupted():
            return await self._loop(reader)

    async def _loop(self, reader: PythonInput) -> int:
        while True:
            try:
                code = await self._read(reader)
            except EOFError:
                return 0
            if not code.strip():
                continue
            try:
                done = await self._evaluate(code)
            except StateError as error:
                click.echo(f"veko: {error}", err=True)
                return 1
            if done is None:
                click.echo("veko: the code does not end; leaving the application", err=True)
                return 1
            if done.leaves:
                return 0
            reader.current_statement_index += 1

    @staticmethod
    async def _read(reader: PythonInput) -> str:
        """Read code; Ctrl+C begins again.

        Raises:
            EOFError: The user leaves, or the terminal is gone.
        """
        while True:
            try:
                return await reader.app.run_async(set_exception_handler=False, handle_sigint=False)
            except KeyboardInterrupt:
                reader.default_buffer.reset()

    async def _evaluate(self, code: str) -> Done | None:
        """Run code and show its end; `None` if the application does not answer any more."""
        width = shutil.get_terminal_size().columns
        running = asyncio.ensure_future(self._connection.run(code, _show, width))
        given_up: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._presses, self._given_up = 0, given_up
        try:
            await asyncio.wait([running, given_up], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._given_up = None
            if not running.done():
                running.cancel()
        if not running.done():
            return None
        done = running.result()
        if done.value is not None:
            click.echo(done.value)
        if done.error is not None:
            click.secho(done.error, fg="red")
        return done

    @contextmanager
    def _interrupted(self) -> Iterator[None]:
        """Handle Ctrl+C. While code is read it is a key; just before and after that it is lost."""
        loop = asyncio.get_running_loop()

        def interrupt(number: int, frame: FrameType | None) -> None:
            if _runs_here(frame):
                raise KeyboardInterrupt
            loop.call_soon_threadsafe(self._interrupt)

        former = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, former)

    def _interrupt(self) -> None:
        if self._given_up is None:
            return
        self._presses += 1
        if self._presses == 1:
            self._connection.cancel()
            asyncio.get_running_loop().call_later(_HINT, self._hint, self._given_up)
        else:
            self._given_up.cancel()

    def _hint(self, waited: asyncio.Future[Done]) -> None:
        """Say how to leave, if what Ctrl+C interrupted still runs."""
        if self._given_up is waited and not waited.done():
            click.echo("veko: the code still runs; Ctrl+C again leaves the application", err=True)


class _Input(PythonInput):
    """What ptpython reads: it knows nothing of the names, which are elsewhere."""

    def get_compiler_flags(self) -> int:
        """Allow `await` outside functions."""
        return super().get_compiler_flags() | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

    def _on_input_timeout(self, buff: Buffer) -> None:
        """Look for no signatures."""


class _Completer(Completer):
    """Asks the application which words may end a line."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        """Yield the words; ptpython calls this in a thread."""
        line = document.current_line_before_cursor
        asking = asyncio.run_coroutine_threadsafe(self._connection.complete(line), self._loop)
        try:
            found = asking.result(_PATIENCE)
        except TimeoutError:
            return
        for word in found.words:
            yield Completion(word, start_position=-found.replaced)


def _show(text: str) -> None:
    click.echo(text, nl=False)


def _runs_here(frame: FrameType | None) -> bool:
    """Return whether a frame, or one that called it, is code of a console in this process."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<console "):
            return True
        frame = frame.f_back
    return False


def _history(root: Path) -> str | None:
    """Return the file of the history, for this user alone; `None` if there is no folder for it."""
    path = root / ".veko" / "console-history"
    try:
        os.close(create_private(path))
    except FileExistsError:
        pass
    except OSError:
        return None
    return str(path)

"""One connection to a console: what its client asks, and the answers.

Promise: a client that leaves ends its code and nothing else; one that does not read what it is sent
loses some of that, and memory stays bounded.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import msgspec

from veko import VekoError, __version__

from .evaluator import Evaluator
from .messages import (
    Answer,
    Asked,
    Cancel,
    Complete,
    Done,
    Open,
    Opened,
    Output,
    Refused,
    Run,
    read_message,
    written,
)

__all__ = ["serve"]

_BEHIND: Final = 1024 * 1024
"""Bytes that may wait for a client; what is printed beyond that is left out."""


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, manager: Any) -> None:
    """Serve a client until it leaves.

    Args:
        reader: What it sends.
        writer: Takes what it gets.
        manager: The manager.
    """
    decoder = msgspec.json.Decoder(Asked)
    try:
        first = await read_message(reader, decoder)
        if not isinstance(first, Open):
            return
        try:
            manager.debug_plugin(first.plugin)
        except VekoError as error:
            writer.write(written(Refused(str(error))))
            await writer.drain()
            return
        await _Serving(writer, Evaluator(manager, first.plugin)).run(reader, decoder)
    except (ValueError, ConnectionError):  # it is no client of ours, or is gone
        return


class _Serving:
    """A client's console."""

    def __init__(self, writer: asyncio.StreamWriter, evaluator: Evaluator) -> None:
        self._writer = writer
        self._evaluator = evaluator
        self._running: asyncio.Task[Done] | None = None
        self._left_out = False

    async def run(self, reader: asyncio.StreamReader, decoder: Any) -> None:
        evaluator = self._evaluator
        try:
            self._send(Opened(os.getpid(), __version__, evaluator.offered))
            while (asked := await read_message(reader, decoder)) is not None:
                if isinstance(asked, Run) and self._running is None:
                    self._running = asyncio.create_task(
                        evaluator.run(asked.code, asked.width, self._print)
                    )
                    self._running.add_done_callback(self._ended)
                elif isinstance(asked, Cancel) and self._running is not None:
                    self._running.cancel()
                elif isinstance(asked, Complete):
                    self._send(evaluator.complete(asked.line))
        finally:
            running = self._running
            if running is not None:
                running.cancel()
                await asyncio.wait([running], timeout=2.0)
            evaluator.close()

    def _ended(self, task: asyncio.Task[Done]) -> None:
        # A task that is cancelled before it begins runs none of its code. Held by
        # test_code_that_is_cancelled_at_once_is_answered.
        self._running, self._left_out = None, False
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            self._send(Done(error="it was cancelled"))
        else:
            self._send(task.result() if error is None else Done(error=repr(error)))

    def _print(self, text: str) -> None:
        if self._writer.transport.get_write_buffer_size() < _BEHIND:
            self._send(Output(text))
        elif not self._left_out:
            self._left_out = True
            self._send(Output("\n… more was printed than could be shown\n"))

    def _send(self, answer: Answer) -> None:
        if not self._writer.is_closing():
            self._writer.write(written(answer))

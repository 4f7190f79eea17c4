"""A worker: the process of one generation of a plugin, and the connection to it.

Promise: its end is noticed whatever ends it, and `lost` is called once. While it owes an answer it
is asked whether it lives; one that does not answer is killed. What it prints goes to the plugin's
log, at a bounded rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from veko import VekoError

from .launcher import Process
from .liveness import Liveness
from .output import Output
from .protocol import Connection, ConnectionLost, Kinds, ProtocolError

__all__ = ["Worker", "WorkerLost"]

_GREETING: Final = 20.0
"""Seconds for a worker to greet."""
_DYING: Final = 1.0
"""Seconds from the end of the connection to that of the process, which says how it ended."""
_ENDING: Final = 5.0
"""Seconds for a worker to end by itself."""


class WorkerLost(VekoError):
    """The process of a plugin has ended, so the plugin cannot be called."""


class Worker:
    """One worker.

    Args:
        name: The plugin's name.
        lost: Is called once if it ends before `end` was called, with why.

    Attributes:
        connection: The connection to it.
        process: Its process.
        liveness: Sees to it that it answers.
        ends: Is called when it has ended: what belongs to it besides its process.
        why: Why it has ended; `None` while it runs.
    """

    connection: Connection
    process: Process
    liveness: Liveness
    _output: Output

    def __init__(self, name: str, lost: Callable[[WorkerLost], None]) -> None:
        self.name = name
        self.why: WorkerLost | None = None
        self.ends: list[Callable[[], None]] = []
        self._lost: Callable[[WorkerLost], None] | None = lost
        self._log = logging.getLogger(f"veko.plugin.{name}")
        self._killed_for = ""
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(
        self,
        begin: Callable[[int], Awaitable[tuple[socket.socket, Process]]],
        *,
        methods: Mapping[str, Callable[..., Any]],
        notes: Mapping[str, Callable[..., Any]],
        kinds: Kinds,
        failed: Callable[[str, Exception], None],
        hello: Mapping[str, Any],
    ) -> None:
        """Start it and exchange greetings.

        Args:
            begin: Starts the process, with the descriptor for its output.
            methods: What it may call.
            notes: What it may call without an answer.
            kinds: The kinds of values that cross.
            failed: Hears of notes that raised.
            hello: The first thing that it hears.

        Raises:
            VekoError: It could not be started, or did not greet.
        """
        ours, theirs = os.pipe()
        self._output = Output(ours, self._print, self._dropped)
        try:
            sock, self.process = await begin(theirs)
        except BaseException:
            self._output.close()
            raise
        finally:
            os.close(theirs)
        self.connection = connection = Connection(
            sock,
            methods=methods,
            notes=notes,
            kinds=kinds,
            failed=failed,
            lost=self._gone,
            other=f"the process of {self.name}",
        )
        self.liveness = Liveness(connection, self._misbehaves)
        try:
            await connection.open(hello, timeout=_GREETING)
        except BaseException as error:
            self._lost = None
            self.process.kill()
            if isinstance(error, TimeoutError | ConnectionLost):
                raise WorkerLost(
                    f"its process did not start: {str(error) or 'it did not greet'}",
                    plugin=self.name,
                    remedy="What it printed is in the log.",
                ) from error
            raise

    def catch_up(self) -> None:
        """Log what it has printed so far."""
        self._output.catch_up()

    # -- its end

    def _gone(self, reason: Exception | None) -> None:
        if not hasattr(self, "process"):
            return
        if isinstance(reason, ProtocolError):  # it has not ended by itself, and will not
            self.process.kill()
        self._spawn(self._bury(reason))

    async def _bury(self, reason: Exception | None) -> None:
        try:
            async with asyncio.timeout(_DYING):
                status = await self.process.wait()
        except TimeoutError:
            self.process.kill()
            status = await self.process.wait()
        self.liveness.stop()
        self._output.drain()
        while self.ends:
            self.ends.pop()()
        if self.why is None:
            text = self._killed_for or self.process.reason
            if not text and isinstance(reason, VekoError) and "is gone" not in reason.message:
                text = reason.message
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            self.why = WorkerLost(
                f"its process has ended: {text or how}",
                plugin=self.name,
                remedy="What it printed is in the log.",
            )
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(self.why)

    def end(self) -> None:
        """Let it end: it is asked to, and killed if it does not in time. A second call is fine."""
        if self._lost is None or self.why is not None:
            return
        self._lost = None
        self.why = WorkerLost("its process was ended", plugin=self.name)
        if not hasattr(self, "liveness"):  # it could not be started
            return
        self.liveness.stop()
        with contextlib.suppress(VekoError):
            self.connection.note("shutdown")
        self._spawn(self._end())

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(_ENDING):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
        await self.connection.close()

    async def ended(self) -> None:
        """Wait until nothing of it is left."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _misbehaves(self, why: str) -> None:
        self._killed_for = f"it {why}"
        self.connection.abort(f"the process of {self.name} {why}")
        self.process.kill()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _print(self, line: str) -> None:
        self._log.info("%s", line, extra={"plugin": self.name})

    def _dropped(self, count: int) -> None:
        self._log.warning(
            "%d lines of its output were not logged: it prints too much",
            count,
            extra={"plugin": self.name},
        )

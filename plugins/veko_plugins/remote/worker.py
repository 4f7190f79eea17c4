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
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from veko import VekoError

from .launcher import Process
from .protocol import Connection, ConnectionLost, Kinds

__all__ = ["Flood", "Worker", "WorkerLost"]

_GREETING: Final = 20.0
"""Seconds for a worker to greet."""
UNANSWERED: Final = 10.0
"""Seconds after which a worker that answers nothing, not even a ping, is killed."""
_LOOK: Final = 1.0
_ENDING: Final = 5.0
"""Seconds for a worker to end by itself."""
_LINES: Final = 200
"""Lines of a worker's output that are logged in a second."""
_LONGEST: Final = 2_000


class WorkerLost(VekoError):
    """The process of a plugin has ended, so the plugin cannot be called."""


class Flood:
    """Lets so many things pass in a second, and counts the others.

    Args:
        most: How many.
        report: Is called with the number of others, at the first one that passes again.
    """

    def __init__(self, most: int, report: Callable[[int], None]) -> None:
        self._most = most
        self._report = report
        self._second = 0.0
        self._passed = self._held = 0

    def passes(self) -> bool:
        """Return whether one more passes."""
        now = time.monotonic()
        if now - self._second >= 1:
            self._second, self._passed = now, 0
            held, self._held = self._held, 0
            if held:
                self._report(held)
        self._passed += 1
        if self._passed <= self._most:
            return True
        self._held += 1
        return False


class Worker:
    """One worker.

    Args:
        name: The plugin's name.
        lost: Is called once if it ends before `end` was called, with why.

    Attributes:
        connection: The connection to it.
        process: Its process.
        ends: Is called when it has ended: what belongs to it besides its process.
        why: Why it has ended; `None` while it runs.
    """

    connection: Connection
    process: Process

    def __init__(self, name: str, lost: Callable[[WorkerLost], None]) -> None:
        self.name = name
        self.why: WorkerLost | None = None
        self.ends: list[Callable[[], None]] = []
        self._lost: Callable[[WorkerLost], None] | None = lost
        self._log = logging.getLogger(f"veko.plugin.{name}")
        self._output: int | None = None
        self._rest = b""
        self._flood = Flood(_LINES, self._dropped)
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
        os.set_blocking(ours, False)
        self._output = ours
        asyncio.get_running_loop().add_reader(ours, self._read_output)
        try:
            sock, self.process = await begin(theirs)
        except BaseException:
            self._close_output()
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
        connection.watched = False
        connection.watch = self._watch
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

    # -- its end

    def _gone(self, reason: Exception | None) -> None:
        if not hasattr(self, "process"):
            return
        self.process.kill()
        self._spawn(self._bury(reason))

    async def _bury(self, reason: Exception | None) -> None:
        status = await self.process.wait()
        self._drain_output()
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
        if self._lost is None and self.why is not None:
            return
        self._lost = None
        self.why = self.why or WorkerLost("its process was ended", plugin=self.name)
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

    def kill(self, why: str) -> None:
        """Kill it; `lost` is called with the reason."""
        self._killed_for = self._killed_for or why
        self.process.kill()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- whether it answers

    def _watch(self) -> None:
        self.connection.watched = True
        self._spawn(self._look())

    async def _look(self) -> None:
        connection = self.connection
        try:
            await asyncio.sleep(_LOOK)
            while connection.calls and not connection.closed:
                try:
                    await connection.ping(UNANSWERED)
                except TimeoutError:
                    if not connection.heard():
                        self.kill(f"it answered nothing for {UNANSWERED:g} s")
                        return
                except ConnectionLost:
                    return
                await asyncio.sleep(_LOOK)
        finally:
            connection.watched = False

    # -- what it prints

    def _read_output(self) -> None:
        output = self._output
        if output is None:
            return
        try:
            data = os.read(output, 2**16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_output()
            return
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_LONGEST]
        for line in lines:
            self._print(line)

    def _print(self, line: bytes) -> None:
        if line and self._flood.passes():
            text = line[:_LONGEST].decode("utf-8", "replace")
            self._log.info("%s", text, extra={"plugin": self.name})

    def _dropped(self, count: int) -> None:
        self._log.warning(
            "%d lines of its output were not logged: it printed more than %d in a second",
            count,
            _LINES,
            extra={"plugin": self.name},
        )

    def _drain_output(self) -> None:
        for _ in range(16):
            if self._output is None:
                return
            self._read_output()
        self._close_output()

    def _close_output(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            asyncio.get_running_loop().remove_reader(output)
            os.close(output)
            self._print(self._rest)
            self._rest = b""

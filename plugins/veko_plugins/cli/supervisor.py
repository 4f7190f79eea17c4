"""`veko serve --workers N`: a process that listens and keeps N others serving on its socket.

The first worker starts alone: what a first start creates is created once, and an error that stops
every worker is reported once. Then the others start. A worker that exits is replaced, after 0.5 s,
then 1 s; if one exits a third time within five minutes, everything stops. Signals go to the
supervisor, which forwards them; each worker has its own session, so that a terminal's Ctrl+C
reaches the supervisor only.

Cost: each worker is the whole application, in memory and in start-up time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
import uuid
from collections import deque
from pathlib import Path
from typing import Any, Final

import msgspec

from veko import OptionError, VekoError
from veko_plugins.logging import Logging
from veko_plugins.options import NO_STORAGE, Options
from veko_plugins.storage import Storage, is_shared

from .lines import lines
from .runner import Quit, Stop, print_error, run
from .serve import READY, Settings, WorkerSettings, bind, end, listening, options_for, set_up

__all__ = ["read_settings", "serve_with_workers"]

_CRASHES: Final = 3
_WINDOW: Final = 300.0
"""Seconds; `_CRASHES` exits of one worker within them stop the application."""
_FIRST_WAIT: Final = 0.5
_MARGIN: Final = 1.0
"""Seconds beyond its own grace after which a worker is killed."""


def serve_with_workers(settings: Settings) -> int:
    """Serve with several processes until a signal; return the exit code."""
    logs = Logging()
    lines.json = settings.log_format == "json"
    try:
        given = options_for(settings, logs)
        set_up(logs, given, settings)
        root = given.pop("root")
        options = Options.read(root, given)
        refuse_unshared(options, settings.workers)
        if sys.platform == "win32":
            raise OptionError(
                "--workers does not work on Windows, which cannot pass sockets to other processes",
                remedy="Serve with one worker.",
            )
    except VekoError as error:
        print_error(error, debug=settings.debug)
        end(logs)
        return 2

    async def work(stop: Stop) -> int:
        with bind(settings.host, settings.port) as listener:
            return await _Supervisor(settings, listener, stop).run()

    grace = settings.grace + 2 * _MARGIN
    try:
        code = run(work, debug=settings.debug, grace=grace, on_stop="Stopping")
        if code == 0:
            lines.say("Stopped")
    finally:
        end(logs)
    return code


def refuse_unshared(options: Options, workers: int) -> None:
    """Refuse what several processes of one application cannot share.

    Args:
        options: The application's options.
        workers: The number of processes.

    Raises:
        OptionError: The storage belongs to one process, or files are watched or edited.
    """
    for name in ("dev_mode", "watch_mode"):
        if getattr(options, name):
            raise OptionError(
                f"{name} is for one process, not for {workers} workers",
                remedy=f"Serve with one worker, or switch {name} off.",
            )
    storage: object = options.core.get("storage", Storage)
    if options.storage == NO_STORAGE and "storage" not in options.core:
        return
    if storage is Storage and is_shared(options.storage):
        return
    if storage is not None and not getattr(storage, "shared", False):
        named = "SQLite" if storage is Storage else f"the storage {type(storage).__name__}"
        raise OptionError(
            f"{named} belongs to one process and cannot be shared by {workers} workers",
            remedy="Serve with one worker, give the option `storage` the URL of a server "
            "(redis://…, postgresql://…, nats://…), replace the core plugin `storage` by one that "
            "processes can share (its `shared` is true), or serve without storage: "
            f'storage = "{NO_STORAGE}".',
        )


class _Worker:
    """One of the workers: its number, and the process that serves now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.serves = False
        self.refresh = False  # whether SIGHUP came while it started
        self.ends: deque[float] = deque(maxlen=_CRASHES)

    def send(self, number: int) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


class _Supervisor:
    def __init__(self, settings: Settings, listener: socket.socket, stop: Stop) -> None:
        self._settings = settings
        self._listener = listener
        self._stop = stop
        self._workers = [_Worker(number + 1) for number in range(settings.workers)]
        self._alive, self._held = os.pipe()
        self._run = uuid.uuid4().hex

    async def run(self) -> int:
        """Keep the workers running until a signal, or an error that stops them all."""
        self._stop.gently = True
        self._stop.at_once = self._kill
        tasks = [asyncio.ensure_future(self._serve()), asyncio.ensure_future(self._forward())]
        asked = asyncio.ensure_future(self._stop.asked.wait())
        try:
            await asyncio.wait([*tasks, asked], return_when=asyncio.FIRST_COMPLETED)
            self._listener.close()
            clean = await self._end([*tasks, asked])
            if tasks[0].done() and not tasks[0].cancelled():
                tasks[0].result()
            return 0 if clean else 1
        finally:
            self._kill()
            os.close(self._alive)
            os.close(self._held)

    async def _serve(self) -> None:
        first, *others = self._workers
        await self._first_start(first)
        async with asyncio.TaskGroup() as group:
            for worker in others:
                group.create_task(self._first_start(worker))
        host, port = self._listener.getsockname()[:2]
        listening(host, port, f", {len(self._workers)} workers")
        async with asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(self._keep(worker))

    async def _first_start(self, worker: _Worker) -> None:
        why = await self._start(worker)
        if why is not None:
            for line in why.splitlines() or ["it exited while starting"]:
                lines.say(
                    f"veko: worker {worker.number} did not start: {line}",
                    "error",
                    worker=worker.number,
                )
            raise Quit(1)

    async def _start(self, worker: _Worker) -> str | None:
        """Start a process and wait until it serves; return the reasons if it does not."""
        answer, ready = os.pipe()
        given = WorkerSettings(
            worker.number, self._listener.fileno(), ready, again=bool(worker.ends), run=self._run
        )
        settings = msgspec.structs.replace(self._settings, worker=given)
        worker.serves = worker.refresh = False
        try:
            worker.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"{__package__}.worker",
                _write_settings(settings),
                str(self._alive),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(self._listener.fileno(), ready, self._alive),
                start_new_session=True,
            )
        except BaseException:
            os.close(answer)
            raise
        finally:
            os.close(ready)
        text = await _read_all(answer)
        worker.serves = text == READY
        if worker.refresh:
            worker.send(signal.SIGHUP)
        return None if worker.serves else text

    async def _keep(self, worker: _Worker) -> None:
        """Replace a worker whenever it ends."""
        while True:
            assert worker.process is not None
            code = await worker.process.wait()
            worker.serves = False
            how = f"on {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
            line = f"worker {worker.number} (process {worker.process.pid}) exited {how}"
            now = time.monotonic()
            worker.ends.append(now)
            if len(worker.ends) == _CRASHES and now - worker.ends[0] < _WINDOW:
                lines.say(
                    f"veko: {line}, for the {_CRASHES}rd time in {_WINDOW / 60:.0f} minutes",
                    "error",
                    worker=worker.number,
                )
                raise Quit(1)
            wait = _FIRST_WAIT * 2 ** sum(now - end < _WINDOW for end in worker.ends) / 2
            lines.say(f"  {line}; a new one starts in {wait:g} s", "warning", worker=worker.number)
            await asyncio.sleep(wait)
            why = await self._start(worker)
            if why is not None:
                for reason in why.splitlines():
                    lines.say(
                        f"veko: worker {worker.number} did not start: {reason}",
                        "error",
                        worker=worker.number,
                    )

    async def _forward(self) -> None:
        """Forward SIGHUP to the workers."""
        while True:
            await self._stop.refresh.wait()
            self._stop.refresh.clear()
            for worker in self._workers:
                if worker.serves:
                    worker.send(signal.SIGHUP)
                else:
                    worker.refresh = True

    async def _end(self, tasks: list[asyncio.Future[Any]]) -> bool:
        """Stop all workers; return whether each exited by itself with code 0."""
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        running = [w.process for w in self._workers if w.process and w.process.returncode is None]
        if not running:
            return True
        for worker in self._workers:
            worker.send(signal.SIGTERM)
        waits = [asyncio.ensure_future(process.wait()) for process in running]
        _, late = await asyncio.wait(waits, timeout=self._settings.grace + _MARGIN)
        self._kill()
        if late:
            await asyncio.wait(late)
        return all(process.returncode == 0 for process in running)

    def _kill(self) -> None:
        for worker in self._workers:
            worker.send(signal.SIGKILL)


async def _read_all(descriptor: int) -> str:
    """Read a pipe until its other end is closed."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    try:
        return (await reader.read()).decode("utf-8", "replace")
    finally:
        transport.close()


def _write_settings(settings: Settings) -> str:
    return msgspec.json.encode(settings, enc_hook=str).decode()


def read_settings(text: str) -> Settings:
    """Return the settings that a supervisor wrote for its worker."""
    return msgspec.json.decode(text, type=Settings, dec_hook=_path)


def _path(type_: type, value: object) -> object:
    return Path(str(value)) if issubclass(type_, Path) else value

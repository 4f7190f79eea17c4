"""The host's side of the launcher: starts workers, and hears how they end."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from veko import VekoError

from .confine import missing
from .confinement import Confinement
from .messages import (
    MOST_DESCRIPTORS,
    Command,
    Ended,
    Failed,
    Frames,
    Kill,
    Ready,
    Report,
    Request,
    Start,
    Started,
    encode,
)

_READ_BYTES = 65_536
_BOOT_SECONDS = 30.0
_START_SECONDS = 30.0
_END_SECONDS = 10.0
_INHERITED = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR", "TZ")
"""What the launcher's process keeps of the environment: what Python itself needs. Secrets do not
even reach the memory that workers are forked from."""
_BOOT = """\
import json, sys
control, host, sys.path[:], preload = map(json.loads, sys.argv[1:])
from veko_plugins.remote.launcher.zygote import main
sys.exit(main(control, host, preload))
"""


class LaunchError(VekoError):
    """Raised when a worker cannot be started.

    Attributes:
        step: Which step failed.
        errno: The system's error number; 0 if it was none of the system's errors.
    """

    def __init__(self, message: str, *, step: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno


class Process:
    """A worker that was started.

    Attributes:
        pid: Its process number, to be shown. It must not be signalled: use `kill`.
        reason: Why the launcher ended it, for example because of its memory; empty if it did not.
    """

    def __init__(self, id: int, pid: int, link: "_Link", ended: asyncio.Future[int]) -> None:
        self.pid = pid
        self.reason = ""
        self._id = id
        self._link = link
        self._ended = ended

    def kill(self) -> None:
        """Kill it and every process that it started; once it has ended, nothing happens."""
        if not self._ended.done():
            self._link.send(Kill(self._id))

    async def wait(self) -> int:
        """Wait until it and every process that it started have ended.

        Returns:
            The exit status, or the negative number of the signal that ended it.
        """
        return await asyncio.shield(self._ended)

    @property
    def status(self) -> int | None:
        """The exit status, `None` while it runs."""
        return self._ended.result() if self._ended.done() else None

    def __repr__(self) -> str:
        state = "runs" if self.status is None else f"ended with {self.status}"
        return f"<Process {self.pid} {state}>"


class Launcher:
    """Starts workers, each in a process of its own, from one small process that is started first.

    The first start takes as long as a Python needs to start and to import `preload` (about 200 ms),
    later ones a few milliseconds. Closing it kills every worker.

    Args:
        preload: Modules that Python workers need; they are imported once, and shared.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = tuple(preload)
        self._link: _Link | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def warm(self) -> None:
        """Start the launcher's process if it does not run.

        Raises:
            LaunchError: It could not be started, or the launcher is closed.
        """
        await self._open()

    async def start(
        self,
        command: Command,
        *,
        confinement: Confinement | None,
        stdio: socket.socket,
        stderr: int,
        fds: Sequence[int] = (),
    ) -> Process:
        """Start a worker, in a session of its own.

        The descriptors are duplicated; the caller closes its own.

        Args:
            command: What it runs.
            confinement: What it may do; `None` is everything.
            stdio: Its descriptors 0 and, unless `command.prints` says otherwise, 1.
            stderr: Its descriptor 2.
            fds: Its descriptors from 3 on.

        Raises:
            LaunchError: It could not be started: the message says which step failed and why.
        """
        if len(fds) + 2 > MOST_DESCRIPTORS:
            raise ValueError(f"at most {MOST_DESCRIPTORS - 2} fds, got {len(fds)}")
        if confinement is not None and (lacks := missing(confinement)):
            raise LaunchError(
                f"this system cannot enforce what the worker may not do: {'; '.join(lacks)}",
                step="be confined",
            )
        link = await self._open()
        return await link.start(command, confinement, [stdio.fileno(), stderr, *fds])

    async def close(self) -> None:
        """Kill every worker and end the launcher's process. A second call does nothing."""
        self._closed = True
        async with self._opening:
            if self._link is not None:
                await self._link.close()
                self._link = None

    async def _open(self) -> "_Link":
        async with self._opening:
            if self._closed:
                raise LaunchError("the launcher is closed")
            if self._link is not None and self._link.lost:
                await self._link.close()
                self._link = None
            if self._link is None:
                self._link = await _Link.open(self._preload)
            return self._link


class _Link:
    """One life of the launcher's process."""

    def __init__(self, control: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.lost = False
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._process = process
        self._frames = Frames(Report)
        self._outgoing: deque[tuple[memoryview, list[int]]] = deque()
        self._ids = 0
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._starting: dict[int, asyncio.Future[Process]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._processes: dict[int, Process] = {}
        self._loop.add_reader(control, self._read)

    @classmethod
    async def open(cls, preload: Sequence[str]) -> Self:
        """Start the launcher's process and wait until it is ready."""
        link = cls(*_boot(preload))
        try:
            async with asyncio.timeout(_BOOT_SECONDS):
                await asyncio.shield(link._ready)
        except BaseException as error:
            await link.close()
            if isinstance(error, TimeoutError):
                raise LaunchError(
                    f"the launcher's process was not ready within {_BOOT_SECONDS:g} s"
                ) from None
            raise
        return link

    async def start(
        self, command: Command, confinement: Confinement | None, descriptors: Sequence[int]
    ) -> Process:
        self._ids = id_ = self._ids + 1
        started: asyncio.Future[Process] = self._loop.create_future()
        self._starting[id_] = started
        self._ended[id_] = self._loop.create_future()
        try:
            self.send(Start(id_, command, confinement, len(descriptors)), descriptors)
            async with asyncio.timeout(_START_SECONDS):
                return await started
        except TimeoutError:
            self.send(Kill(id_))
            raise LaunchError(f"a worker did not start within {_START_SECONDS:g} s") from None
        except asyncio.CancelledError:
            self.send(Kill(id_))
            raise
        finally:
            self._starting.pop(id_, None)

    def send(self, request: Request, descriptors: Sequence[int] = ()) -> None:
        if self.lost:
            if not isinstance(request, Kill):
                raise LaunchError("the launcher's process has ended")
            return
        # The caller may close its descriptors before these bytes are written.
        self._outgoing.append((memoryview(encode(request)), [os.dup(d) for d in descriptors]))
        if len(self._outgoing) == 1:
            self._write()

    def _write(self) -> None:
        while self._outgoing:
            data, descriptors = self._outgoing[0]
            try:
                sent = socket.send_fds(self._control, [data], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._control, self._write)
                return
            except OSError:
                self._lose()
                return
            _close_all(descriptors)
            if sent < len(data):
                self._outgoing[0] = data[sent:], []
            else:
                self._outgoing.popleft()
        self._loop.remove_writer(self._control)

    def _read(self) -> None:
        try:
            data = self._control.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        for report in self._frames.feed(data):
            self._take(report)

    def _take(self, report: Report) -> None:
        match report:
            case Ready():
                self._ready.set_result(None)
            case Started(id, pid):
                process = Process(id, pid, self, self._ended[id])
                self._processes[id] = process
                _resolve(self._starting.pop(id, None), process)
            case Failed(0, step, number, reason):
                text = f"the launcher's process could not {step}: {reason}"
                self._ready.set_exception(LaunchError(text, step=step, errno=number))
            case Failed(id, step, number, reason):
                error = LaunchError(
                    f"the worker could not {step}: {reason}", step=step, errno=number
                )
                if (starting := self._starting.pop(id, None)) is not None and not starting.done():
                    starting.set_exception(error)
            case Ended(id, status, reason):
                if (ended := self._processes.pop(id, None)) is not None:
                    ended.reason = reason
                _resolve(self._ended.pop(id, None), status)

    def _lose(self) -> None:
        """Take every worker for killed: the kernel kills them with the launcher's process."""
        if self.lost:
            return
        self.lost = True
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        for _, descriptors in self._outgoing:
            _close_all(descriptors)
        self._outgoing.clear()
        error = LaunchError("the launcher's process has ended")
        if not self._ready.done():
            self._ready.set_exception(error)
        for starting in self._starting.values():
            if not starting.done():
                starting.set_exception(error)
        for process in self._processes.values():
            process.reason = process.reason or "the launcher's process has ended"
        for ended in self._ended.values():
            _resolve(ended, -9)
        self._ended.clear()
        self._processes.clear()
        self._gone.set_result(None)

    async def close(self) -> None:
        if not self.lost:
            self._control.shutdown(socket.SHUT_WR)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await asyncio.shield(self._gone)
        self._lose()
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # was raised by `open`
        try:
            await asyncio.to_thread(self._process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)


def _boot(preload: Sequence[str]) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the launcher's process; return our end of the socket to it, and the process."""
    ours, theirs = socket.socketpair()
    host = os.pidfd_open(os.getpid()) if sys.platform == "linux" else None
    passed = [theirs.fileno()] if host is None else [theirs.fileno(), host]
    path = [str(Path(entry).absolute()) for entry in sys.path]
    words = [json.dumps(value) for value in (theirs.fileno(), host, path, list(preload))]
    flags = ["-s", "-P", *(["-B"] if sys.dont_write_bytecode else [])]
    try:
        # Python uses vfork here: it takes about 1 ms, however large this process is.
        process = subprocess.Popen(
            [sys.executable, *flags, "-c", _BOOT, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=passed,
            env={name: os.environ[name] for name in _INHERITED if name in os.environ},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        raise LaunchError(
            f"the launcher's process could not be started with {sys.executable}: {error}",
            step="start the launcher",
            errno=error.errno or 0,
        ) from error
    finally:
        theirs.close()
        if host is not None:
            os.close(host)
    ours.setblocking(False)
    return ours, process


def _resolve(future: asyncio.Future[Any] | None, value: object) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    descriptors.clear()

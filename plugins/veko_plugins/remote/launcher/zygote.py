"""The launcher's process: a small Python with one thread that forks every worker.

Forking the host itself would copy its secrets, its threads' locks and its descriptors. This process
starts with none of them, imports what Python workers need, and then only waits. It alone reaps and
signals its children, so no pid that was reaped is ever signalled. When the host ends, however that
happens, it kills every worker, removes their folders and ends.
"""

import contextlib
import functools
import gc
import importlib
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import child, folders, native, warden
from .messages import (
    MOST_DESCRIPTORS,
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
from .processes import children, descendants, reap, resident

_READ_BYTES = 65_536
_END_SECONDS = 6.0
"""Wardens give up on what they kill after 5 s."""
_FASTEST = 8 * 2**30
"""Bytes a second by which memory may grow: a look costs 20 us, so it waits as long as it may."""
_SHORTEST, _LONGEST = 0.01, 0.25
"""Seconds between two looks at the memory of workers."""


class _Worker:
    """A worker and how far it is."""

    def __init__(self, start: Start, pid: int, report: int, folder: Path | None) -> None:
        self.id = start.id
        self.pid = pid
        self.report: int | None = report
        self.folder = folder
        self.guarded = warden.is_needed(start)
        self.memory = None if start.confinement is None else start.confinement.memory
        self.said = b""
        self.reason = ""


class Zygote:
    """Forks, reaps and kills workers as the host asks.

    Args:
        control: The socket to the host.
        host: A pidfd of the host, where the system has such.
    """

    def __init__(self, control: socket.socket, host: int | None) -> None:
        self._control = control
        self._host = host
        self._frames = Frames(Request)
        self._descriptors: list[int] = []
        self._workers: dict[int, _Worker] = {}
        self._removals: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._read_control)
        self._wakeup, self._waker = os.pipe()
        for end in (self._wakeup, self._waker):
            os.set_blocking(end, False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._reap)
        signal.set_wakeup_fd(self._waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if host is not None:
            self._selector.register(host, selectors.EVENT_READ, self._lose_host)
        self._serving = True
        self._look = math.inf  # when to look at the memory of workers

    def serve(self) -> None:
        """Work until the host is gone."""
        while self._serving:
            self._turn(self._watch_memory())
        self._end_all()

    def _turn(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            handle: Callable[[], None] = key.data
            handle()

    def say(self, report: Report) -> None:
        """Send a report; a host that is gone needs none."""
        with contextlib.suppress(OSError):
            self._control.sendall(encode(report))

    # What the host asks

    def _lose_host(self) -> None:
        self._serving = False

    def _read_control(self) -> None:
        data, descriptors, _, _ = socket.recv_fds(self._control, _READ_BYTES, MOST_DESCRIPTORS)
        if not data:
            self._serving = False
            return
        self._descriptors += descriptors
        for request in self._frames.feed(data):
            if isinstance(request, Kill):
                if (worker := self._workers.get(request.id)) is not None:
                    self._kill(worker)
                continue
            given = self._descriptors[: request.descriptors]
            del self._descriptors[: request.descriptors]
            try:
                self._start(request, given)
            except OSError as error:
                number = error.errno or 0
                self.say(Failed(request.id, "fork", number, os.strerror(number)))
            for descriptor in given:
                os.close(descriptor)

    def _start(self, start: Start, descriptors: Sequence[int]) -> None:
        folder = folders.make() if start.command.cwd is None else None
        report, reported = os.pipe()
        launcher = os.getpid()
        pid = os.fork()
        if not pid:
            self._close()
            raise child.Fork(
                functools.partial(child.run, start, descriptors, reported, folder, launcher)
            )
        os.close(reported)
        worker = _Worker(start, pid, report, folder)
        self._workers[start.id] = worker
        if worker.memory is not None:
            self._look = min(self._look, time.monotonic() + _SHORTEST)
        self._selector.register(
            report, selectors.EVENT_READ, functools.partial(self._read_report, worker)
        )

    def _close(self) -> None:
        """Let go of the launcher's descriptors in a forked process."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._control.close()

    # What workers report

    def _read_report(self, worker: _Worker) -> None:
        assert worker.report is not None
        data = os.read(worker.report, _READ_BYTES)
        worker.said += data
        if data:
            return
        self._selector.unregister(worker.report)
        os.close(worker.report)
        worker.report = None
        pid, _, failure = worker.said.decode("utf-8", "replace").partition("\n")
        if not pid:
            self.say(Failed(worker.id, "fork", 0, "the process ended at once"))
        elif failure:
            number, step, reason = failure.split("\n", 2)
            self.say(Failed(worker.id, step, int(number), reason))
        else:
            self.say(Started(worker.id, int(pid)))

    # How workers end

    def _watch_memory(self) -> float | None:
        """End the workers that use too much; return the seconds to the next look.

        A limit of address space would be simpler, and too low for what reserves much and uses
        little: Deno, numpy.
        """
        now = time.monotonic()
        if now < self._look:
            return None if self._look == math.inf else self._look - now
        wait = math.inf
        for worker in self._workers.values():
            if worker.memory is None or worker.reason:
                continue
            below = descendants(worker.pid) if worker.guarded else ()
            used = resident((worker.pid, *below))
            if used > worker.memory:
                worker.reason = (
                    f"used {used >> 20} MiB of memory, {worker.memory >> 20} MiB are allowed"
                )
                self._kill(worker)
            left = (worker.memory - used) / _FASTEST
            wait = min(wait, max(left, _SHORTEST), _LONGEST)
        self._look = now + wait
        return None if wait == math.inf else wait

    def _kill(self, worker: _Worker) -> None:
        # Only this process reaps, and it has not reaped this one: the pid is still the worker's.
        os.kill(worker.pid, signal.SIGTERM if worker.guarded else signal.SIGKILL)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wakeup, _READ_BYTES):
                pass
        ended = reap()
        for worker in [worker for worker in self._workers.values() if worker.pid in ended]:
            while worker.report is not None:
                self._read_report(worker)
            del self._workers[worker.id]
            self._remove(worker.folder)
            self.say(Ended(worker.id, ended[worker.pid], worker.reason))
        self._removals -= ended.keys()
        self._kill_strays()

    def _kill_strays(self) -> None:
        """Kill what a warden left behind that was itself killed: nobody else would."""
        known = {worker.pid for worker in self._workers.values()} | self._removals
        for pid in children(os.getpid()):
            if pid not in known:
                os.kill(pid, signal.SIGKILL)

    def _remove(self, folder: Path | None) -> None:
        if folder is None:
            return
        with contextlib.suppress(OSError):
            folder.rmdir()  # mostly empty, and then no process is needed
            return
        pid = os.fork()
        if pid:
            self._removals.add(pid)
            return
        with contextlib.suppress(OSError):
            folders.remove(folder)
        os._exit(0)

    def _end_all(self) -> None:
        for worker in self._workers.values():
            self._kill(worker)
        limit = time.monotonic() + _END_SECONDS
        while (self._workers or self._removals) and time.monotonic() < limit:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._control)
            if self._host is not None:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(self._host)
            self._turn(0.1)


def main(control: int, host: int | None, preload: Sequence[str]) -> int:
    """Run the launcher's process, or what a process forked from it is for.

    Args:
        control: Descriptor of the socket to the host.
        host: A pidfd of the host, or `None`.
        preload: Modules to import first.

    Returns:
        The exit status.
    """
    zygote = Zygote(socket.socket(fileno=control), host)
    for module in preload:
        try:
            importlib.import_module(module)
        except Exception as error:
            zygote.say(Failed(0, f"import {module}", 0, f"{type(error).__name__}: {error}"))
            return 1
    native.adopt_orphans()
    gc.collect()
    gc.freeze()  # forked workers share these objects' pages: their collector does not touch them
    try:
        zygote.say(Ready(_threads()))
        zygote.serve()
    except child.Fork as fork:
        run = fork.run
    else:
        return 0
    del zygote
    return run()


def _threads() -> int:
    with contextlib.suppress(OSError):
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    return len(sys._current_frames())

"""Workers started by a real launcher, and what they print."""

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from veko_plugins.remote.launcher import Command, Confinement, Launcher, Process

SECONDS = 20.0


class Worker:
    """A worker whose descriptors 0 and 1 are a socket to here, and whose stderr is collected."""

    def __init__(self, process: Process, stdio: socket.socket, stderr: socket.socket) -> None:
        self.process = process
        self.stdio = stdio
        self._stderr = stderr

    async def line(self) -> str:
        """The next line that it writes to descriptor 1; empty at the end."""
        loop = asyncio.get_running_loop()
        found = b""
        async with asyncio.timeout(SECONDS):
            while not found.endswith(b"\n") and (byte := await loop.sock_recv(self.stdio, 1)):
                found += byte
        return found.decode().rstrip("\n")

    async def errors(self) -> str:
        """All that it wrote to stderr, once it has ended."""
        loop = asyncio.get_running_loop()
        found = b""
        async with asyncio.timeout(SECONDS):
            while part := await loop.sock_recv(self._stderr, 65_536):
                found += part
        return found.decode()

    async def ends(self) -> int:
        """Its exit status."""
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()

    def close(self) -> None:
        self.stdio.close()
        self._stderr.close()


class Workers:
    """Starts workers with one launcher."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self._running: list[Worker] = []

    async def start(
        self, command: Command, confinement: Confinement | None = None, fds: Sequence[int] = ()
    ) -> Worker:
        ours, theirs = socket.socketpair()
        errors, stderr = socket.socketpair()
        with theirs, stderr:
            try:
                process = await self.launcher.start(
                    command, confinement=confinement, stdio=theirs, stderr=stderr.fileno(), fds=fds
                )
            except BaseException:
                ours.close()
                errors.close()
                raise
        ours.setblocking(False)
        errors.setblocking(False)
        self._running.append(Worker(process, ours, errors))
        return self._running[-1]

    async def python(
        self, code: str, confinement: Confinement | None = None, *, cwd: Path | None = None
    ) -> Worker:
        """Start a Python program."""
        argv = (sys.executable, "-I", "-S", "-c", code)
        return await self.start(Command(argv=argv, cwd=cwd), confinement)

    def close(self) -> None:
        for worker in self._running:
            worker.close()


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Launcher() as launcher:
        workers = Workers(launcher)
        with contextlib.closing(workers):
            yield workers


def lives(pid: int) -> bool:
    """Whether a process of this number runs, zombies excepted."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("ascii")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


async def until_gone(pid: int) -> None:
    """Wait until a process has ended."""
    await until(lambda: not lives(pid))


async def until(true: Callable[[], bool]) -> None:
    """Wait for what other processes do and no event reports."""
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def descriptors() -> set[str]:
    """The open descriptors of this process, as what they lead to."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(f"{link.name} {link.readlink()}")
    return found

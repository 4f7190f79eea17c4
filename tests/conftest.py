"""What every test stands on: its async backend, bounded property tests, nothing left behind.

Tests run on asyncio; those in ``tests/kernel`` on asyncio, uvloop and trio (its own conftest). A
test that leaves a task, a timer or a thread behind fails, after Home Assistant's
``verify_cleanup``: the leak is named where it was made, not where it does its harm.
"""

import asyncio
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Self

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, settings

SECONDS = 60.0
"""Seconds within which a process that a test started does what is waited for."""
_SETTLE_TURNS = 20
_JOIN_SECONDS = 2.0
_POOLS = ("AnyIO worker thread", "asyncio_", "Trio thread", "waitpid-", "Dummy-")
"""Threads which the backends keep for the next caller and end by themselves, and what Python calls
those that an extension (granian) made."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs the suite in the background lets it ignore Ctrl+C. What the tests start
    # would inherit that, and could not be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=50,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("dev", settings.get_profile("ci"), derandomize=False)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in captured output: workers send reports as UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8"))
        for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Run async tests on asyncio; a folder's own conftest may say otherwise."""
    return "asyncio", {}


@pytest.fixture(autouse=True)
def verify_cleanup(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves tasks, timers or threads behind."""
    before = set(threading.enumerate())
    if "anyio_backend" in request.fixturenames:
        request.getfixturevalue("verify_loop")
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        if not thread.name.startswith(_POOLS):
            thread.join(_JOIN_SECONDS)
            if thread.is_alive():
                pytest.fail(f"left a thread behind: {thread!r}")


@pytest.fixture
async def verify_loop(anyio_backend_name: str) -> AsyncIterator[None]:
    """Compare the tasks and timers of the running loop before and after the test.

    The backend cancels what is left when it closes, so this must look before it does. What is
    about to end gets a few turns of the loop to do so, but no time.
    """
    living = _living_on_trio if anyio_backend_name == "trio" else _living_on_asyncio
    before = living()
    yield
    for _ in range(_SETTLE_TURNS):
        left = living() - before
        if not left:
            return
        await anyio.lowlevel.checkpoint()
    pytest.fail("left behind:\n" + "\n".join(sorted(map(repr, left))))


def _living_on_asyncio() -> set[object]:
    loop = asyncio.get_running_loop()
    # uvloop shows nobody its timers.
    timers: list[asyncio.TimerHandle] = getattr(loop, "_scheduled", [])
    tasks = (task for task in asyncio.all_tasks() if not _drives_tests(task))
    return {*tasks, *(timer for timer in timers if not timer.cancelled())}


def _drives_tests(task: asyncio.Task[object]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")


def _living_on_trio() -> set[object]:
    import trio

    root = trio.lowlevel.current_root_task()
    found: set[object] = set()
    pending = [root] if root is not None else []
    while pending:
        task = pending.pop()
        found.add(task)
        pending.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return found


class Veko:
    """A running `veko`, its lines as they come: a full pipe that nobody reads would block it."""

    def __init__(self, *words: str, cwd: Path | None = None, **environ: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "veko_plugins.cli", *words],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "100", **environ},
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until a line matches."""
        end = time.monotonic() + SECONDS
        while True:
            line = self._queue.get(timeout=max(0.0, end - time.monotonic()))
            if line is None:
                raise AssertionError(f"ended without {pattern!r}:\n" + "\n".join(self.lines))
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found

    def ends(self) -> int:
        """Wait until it ends, and return its exit code."""
        code = self.process.wait(SECONDS)
        self._reader.join()
        while (line := self._queue.get()) is not None:
            self.lines.append(line)
        return code

    def stop(self) -> None:
        """End it as an operator does, and check that it ends well."""
        self.process.send_signal(signal.SIGTERM)
        code = self.ends()
        assert code == 0, self.text

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(SECONDS)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Veko]]:
    """Start `veko` with these words; it is ended with the test."""
    running: list[Veko] = []

    def start(*words: object, cwd: Path = tmp_path, **environ: str) -> Veko:
        running.append(Veko(*map(str, words), cwd=cwd, **environ))
        return running[-1]

    yield start
    for veko in running:
        veko.__exit__()


@pytest.fixture
def veko(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `veko` with these words to its end."""

    def run(*words: object, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "veko_plugins.cli", *map(str, words)],
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=SECONDS,
            check=False,
            env={**os.environ, "COLUMNS": "100", **env},
        )

    return run

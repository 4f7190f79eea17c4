"""What every test stands on: its async backend, bounded property tests, nothing left behind.

Tests run on asyncio; those in ``tests/kernel`` on asyncio, uvloop and trio (its own conftest). A
test that leaves a task, a timer or a thread behind fails, after Home Assistant's
``verify_cleanup``: the leak is named where it was made, not where it does its harm.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Generator, Iterator

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, settings

_SETTLE_TURNS = 20
_JOIN_SECONDS = 2.0
_POOLS = ("AnyIO worker thread", "asyncio_", "Trio thread", "waitpid-", "Dummy-")
"""Threads which the backends keep for the next caller and end by themselves, and what Python calls
those that an extension (granian) made."""

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

"""Scopes: a plugin's tasks and resources, opened and closed from anywhere, in bounded time."""

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import Kernel, LoadError, LoadTimeout, TransactionError, VekoError

pytestmark = pytest.mark.anyio


def plugin(name: str, load: Any = lambda: None, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


@asynccontextmanager
async def opened(log: list[str], name: str) -> AsyncIterator[str]:
    await anyio.lowlevel.checkpoint()
    log.append(f"open {name}")
    try:
        # A scope of its own: left in another task than it was entered in, it would break.
        async with anyio.create_task_group():
            yield name
    finally:
        await anyio.lowlevel.checkpoint()
        log.append(f"close {name}")


# -- resources


async def test_resources_close_in_reverse_order(kernel: Kernel) -> None:
    log: list[str] = []

    async def load(context: Any) -> None:
        for name in ("a", "b", "c"):
            assert await context.enter(opened(log, name)) == name

    await kernel.load(plugin("p", load, unload=lambda: log.append("unload")))
    assert log == ["open a", "open b", "open c"]
    await kernel.toggle("p", False)
    await kernel.toggle("p", True)
    assert log == ["open a", "open b", "open c"]
    await kernel.unload("p")
    assert log[3:] == ["unload", "close c", "close b", "close a"]


async def test_a_failed_load_closes_what_it_opened(kernel: Kernel) -> None:
    log: list[str] = []

    async def load(context: Any) -> None:
        await context.enter(opened(log, "a"))
        await context.enter(opened(log, "b"))
        raise ValueError

    with pytest.raises(LoadError):
        await kernel.load(plugin("p", load))
    assert log == ["open a", "open b", "close b", "close a"]


async def test_resources_are_entered_and_left_from_any_task(kernel: Kernel) -> None:
    log: list[str] = []
    contexts: list[Any] = []
    await kernel.load(plugin("p", lambda context: contexts.append(context)))
    [context] = contexts

    async def enter(name: str) -> None:
        with anyio.CancelScope():
            await context.enter(opened(log, name))

    async with anyio.create_task_group() as group:
        for name in ("a", "b", "c"):
            group.start_soon(enter, name)
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.unload, "p")
    assert sorted(log) == sorted(f"{what} {name}" for name in "abc" for what in ("open", "close"))
    await anyio.lowlevel.checkpoint()


async def test_what_entering_raises_reaches_the_plugin(kernel: Kernel) -> None:
    caught: list[BaseException] = []

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        await anyio.lowlevel.checkpoint()
        raise OSError("no such port")
        yield

    async def load(context: Any) -> None:
        try:
            await context.enter(broken())
        except OSError as error:
            caught.append(error)

    await kernel.load(plugin("p", load))
    assert len(caught) == 1
    await kernel.unload("p")


async def test_entering_that_awaits_a_cancelled_task_fails(
    kernel: Kernel, on_asyncio: None
) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await task
        yield

    async def load(context: Any) -> None:
        await context.enter(broken())
        raise AssertionError("it never opened")

    with pytest.raises(LoadError, match="CancelledError"):
        await kernel.load(plugin("p", load))


async def test_a_resource_that_hangs_while_closing_is_cut_off(faults: Any) -> None:
    log: list[str] = []

    @asynccontextmanager
    async def hangs() -> AsyncIterator[None]:
        yield
        await anyio.sleep_forever()

    class Swallows:  # no generator: Python 3.11 cannot close one that is being resumed
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *args: object) -> None:
            while True:
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    pass

    async def load(context: Any) -> None:
        await context.enter(opened(log, "first"))
        await context.enter(hangs())
        await context.enter(Swallows())

    async with Kernel(timeout=0.02) as kernel:
        seen = faults(kernel.bus)
        await kernel.load(plugin("p", load))
        with anyio.fail_after(5):
            await kernel.unload("p")
        assert log == ["open first", "close first"]
        assert [type(error) for error, _ in seen] == [LoadTimeout, LoadTimeout]


async def test_closing_goes_on_when_a_step_of_it_fails(kernel: Kernel, faults: Any) -> None:
    seen = faults(kernel.bus)
    log: list[str] = []

    @asynccontextmanager
    async def broken(kind: type[BaseException]) -> AsyncIterator[None]:
        yield
        raise kind

    async def load(context: Any) -> None:
        await context.enter(opened(log, "a"))
        await context.enter(broken(ValueError))
        await context.enter(broken(SystemExit))
        await context.enter(opened(log, "b"))

    record = await kernel.load(plugin("p", load))
    await kernel.unload("p")
    assert log == ["open a", "open b", "close b", "close a"]
    assert len(seen) == 2
    assert record.error_count == 2


async def test_a_resource_that_breaks_while_open_is_reported(kernel: Kernel, faults: Any) -> None:
    seen = faults(kernel.bus)
    reported = anyio.Event()
    kernel.bus.on("plugin:error", lambda name: reported.set())

    @asynccontextmanager
    async def breaks() -> AsyncIterator[None]:
        async def work() -> None:
            await anyio.lowlevel.checkpoint()
            raise ConnectionError

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            yield

    async def load(context: Any) -> None:
        await context.enter(breaks())

    await kernel.load(plugin("p", load))
    with anyio.fail_after(5):
        await reported.wait()
    assert len(seen) == 1
    await kernel.unload("p")


async def test_nothing_opens_after_unload(kernel: Kernel) -> None:
    log: list[str] = []
    contexts: list[Any] = []
    await kernel.load(plugin("p", lambda context: contexts.append(context)))
    await kernel.unload("p")
    [context] = contexts
    with pytest.raises(TransactionError):
        await context.enter(opened(log, "late"))
    with pytest.raises(TransactionError):
        context.spawn(anyio.sleep_forever)
    with pytest.raises(TransactionError):
        context.every(1, print)
    with pytest.raises(TransactionError):
        context.hook("x", print)
    assert log == []
    assert not kernel.bus.heard("x")


async def test_a_resource_being_entered_when_the_plugin_goes(kernel: Kernel) -> None:
    log: list[str] = []
    begun, go = anyio.Event(), anyio.Event()
    contexts: list[Any] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        begun.set()
        await go.wait()
        log.append("open")
        try:
            yield
        finally:
            log.append("close")

    await kernel.load(plugin("p", lambda context: contexts.append(context)))

    async def enter() -> None:
        try:
            await contexts[0].enter(slow())
        except VekoError as error:
            log.append(type(error).__name__)

    async with anyio.create_task_group() as group:
        group.start_soon(enter)
        await begun.wait()
        group.start_soon(kernel.unload, "p")
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert log.count("open") == log.count("close")


async def test_a_cancelled_enter_closes_what_it_opened(kernel: Kernel) -> None:
    log: list[str] = []
    contexts: list[Any] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        try:
            await anyio.sleep_forever()
            yield
        finally:
            log.append("left")

    await kernel.load(plugin("p", lambda context: contexts.append(context)))
    with anyio.move_on_after(0.02) as scope:
        await contexts[0].enter(slow())
    assert scope.cancelled_caught
    await kernel.unload("p")
    assert log == ["left"]


# -- tasks


async def test_tasks_start_when_the_plugin_is_live_and_end_with_it(kernel: Kernel) -> None:
    log: list[str] = []

    async def work(context: Any, number: int) -> None:
        assert kernel.get("p").active  # type: ignore[union-attr]
        log.append(f"begins {number}")
        try:
            await anyio.sleep_forever()
        finally:
            log.append(f"ends {number}")

    async def load(context: Any) -> None:
        context.spawn(work, context, 1)
        await anyio.wait_all_tasks_blocked()
        assert log == []

    await kernel.load(plugin("p", load))
    await anyio.wait_all_tasks_blocked()
    assert log == ["begins 1"]
    await kernel.unload("p")
    assert log == ["begins 1", "ends 1"]


async def test_tasks_of_a_failed_load_never_start(kernel: Kernel) -> None:
    log: list[str] = []

    async def load(context: Any) -> None:
        context.spawn(lambda: log.append("ran"))
        context.every(0.001, lambda: log.append("beat"))
        raise ValueError

    with pytest.raises(LoadError):
        await kernel.load(plugin("p", load))
    await anyio.wait_all_tasks_blocked()
    assert log == []


async def test_a_task_that_fails_is_reported_and_hurts_nobody(
    kernel: Kernel, anyio_backend_name: str
) -> None:
    reported: list[tuple[str, str]] = []
    expected = 4 if anyio_backend_name == "trio" else 5
    all_told = anyio.Event()

    def hear(name: str, error: BaseException) -> None:
        reported.append((name, type(error).__name__))
        if len(reported) == expected:
            all_told.set()

    kernel.bus.on("plugin:error", hear)

    async def fails(kind: type[BaseException]) -> None:
        await anyio.lowlevel.checkpoint()
        raise kind

    def fails_at_once() -> None:
        raise KeyError

    async def awaits_a_cancelled_task() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await task

    def load(context: Any) -> None:
        for kind in (ValueError, SystemExit, GeneratorExit):
            context.spawn(fails, kind)
        context.spawn(fails_at_once)
        if anyio_backend_name != "trio":
            context.spawn(awaits_a_cancelled_task)

    record = await kernel.load(plugin("p", load))
    with anyio.fail_after(5):
        await all_told.wait()
    assert record.error_count == expected
    await kernel.unload("p")


async def test_cancelling_a_task(kernel: Kernel) -> None:
    log: list[str] = []
    tasks: list[Any] = []

    async def work() -> None:
        log.append("begins")
        try:
            await anyio.sleep_forever()
        finally:
            log.append("ends")

    def load(context: Any) -> None:
        tasks.append(context.spawn(work))
        context.spawn(work).cancel()

    await kernel.load(plugin("p", load))
    await anyio.wait_all_tasks_blocked()
    assert await tasks[0] is tasks[0]
    tasks[0].cancel()
    tasks[0].cancel()
    await anyio.wait_all_tasks_blocked()
    assert log == ["begins", "ends"]
    await kernel.toggle("p", False)
    await kernel.toggle("p", True)
    await anyio.wait_all_tasks_blocked()
    assert log == ["begins", "ends"]


async def test_a_task_that_swallows_cancellation_is_ended(faults: Any) -> None:
    async def stubborn() -> None:
        while True:
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                pass

    async with Kernel(timeout=0.02) as kernel:
        await kernel.load(plugin("p", lambda context: context.spawn(stubborn)))
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(10):
            await kernel.unload("p")
        assert kernel.get("p") is None


async def test_tasks_have_a_clean_context(kernel: Kernel) -> None:
    """A task inherits neither the pin nor the cancel scope of who started it."""
    contexts: list[Any] = []
    seen: list[bool] = []
    done = anyio.Event()
    await kernel.load(plugin("p", lambda context: contexts.append(context)))

    async def work() -> None:
        seen.append(kernel.registry is kernel.bus.registry)
        done.set()

    with anyio.CancelScope() as scope, kernel.pin():
        kernel.bus.on("x", print)
        contexts[0].spawn(work)
        scope.cancel()
        await anyio.lowlevel.checkpoint()
    with anyio.fail_after(5):
        await done.wait()
    assert seen == [True]


async def test_every_beats_and_goes_on_after_a_failure(kernel: Kernel) -> None:
    beats: list[str] = []
    enough = anyio.Event()

    async def beat() -> None:
        beats.append("beat")
        if len(beats) == 3:
            enough.set()
        raise (ValueError, SystemExit, ValueError)[len(beats) % 3]

    record = await kernel.load(plugin("p", lambda context: context.every(0.005, beat)))
    assert beats == []
    with anyio.fail_after(5):
        await enough.wait()
    await kernel.unload("p")
    count = len(beats)
    assert record.error_count >= 2
    await anyio.sleep(0.02)
    assert len(beats) == count


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
async def test_every_needs_seconds(kernel: Kernel, seconds: float) -> None:
    with pytest.raises((VekoError, LoadError)):
        await kernel.load(plugin("p", lambda context: context.every(seconds, print)))


async def test_tasks_that_ended_do_not_pile_up(kernel: Kernel) -> None:
    contexts: list[Any] = []
    await kernel.load(plugin("p", lambda context: contexts.append(context)))
    references = []

    class Work:
        async def __call__(self) -> None: ...

    for _ in range(50):
        work = Work()
        references.append(weakref.ref(work))
        contexts[0].spawn(work)
        del work
        await anyio.wait_all_tasks_blocked()
    import gc

    gc.collect()
    assert sum(reference() is not None for reference in references) <= 2

"""Handlers side by side: each in a task of its own, and none outlives the emission."""

import asyncio
import contextvars
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import Bus, Event, Kernel

pytestmark = pytest.mark.anyio
SHORT = 0.02


async def quick(value: Any) -> str:
    return "quick"


async def suspends(value: Any) -> str:
    await anyio.lowlevel.checkpoint()
    return "suspends"


def bus_of(*handlers: Any, **options: Any) -> Bus:
    bus = Bus()
    for handler in handlers:
        bus.on("x", handler, **options)
    return bus


async def test_a_scope_around_it_ends_all(faults: Any) -> None:
    ended: list[int] = []

    async def hangs(value: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(1)

    bus = bus_of(hangs, hangs, quick)
    seen = faults(bus)
    with anyio.fail_after(30), anyio.move_on_after(SHORT) as scope:
        await bus.gather("x", 1)
    assert scope.cancelled_caught
    assert ended == [1, 1]
    assert seen == []
    await anyio.lowlevel.checkpoint()  # the scopes are intact


async def test_handlers_side_by_side_have_scopes_of_their_own(faults: Any) -> None:
    async def moves_on(value: Any) -> str:
        with anyio.move_on_after(SHORT):
            await anyio.sleep_forever()
        return "moved on"

    async def fails(value: Any) -> None:
        with anyio.fail_after(SHORT):
            await anyio.sleep_forever()

    async def in_a_group(value: Any) -> int:
        done: list[int] = []

        async def work(number: int) -> None:
            await anyio.lowlevel.checkpoint()
            done.append(number)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(work, number)
        return len(done)

    bus = bus_of(moves_on, fails, in_a_group)
    seen = faults(bus)
    assert await bus.gather("x", 1) == ["moved on", 3]
    assert [type(error) for error, _ in seen] == [TimeoutError]


async def test_asyncio_timeouts_in_handlers_side_by_side(on_asyncio: None) -> None:
    async def times_out(value: Any) -> str:
        try:
            async with asyncio.timeout(SHORT):
                await asyncio.sleep(60)
        except TimeoutError:
            return "timed out"
        return "slept"

    assert await bus_of(times_out, times_out).gather("x", 1) == ["timed out"] * 2


async def test_handlers_side_by_side_clean_up_behind_a_shield() -> None:
    cleaned: list[str] = []

    async def tidy(value: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5 * SHORT)
                cleaned.append("cleaned")

    async def busy(value: Any) -> None:
        with anyio.CancelScope(shield=True), anyio.CancelScope():
            await anyio.sleep(5 * SHORT)
            cleaned.append("done")
        await anyio.sleep_forever()

    with anyio.fail_after(30), anyio.move_on_after(SHORT) as scope:
        await bus_of(tidy, busy).gather("x", 1)
    assert scope.cancelled_caught
    assert sorted(cleaned) == ["cleaned", "done"]


async def test_a_handler_that_ignores_a_cancellation_gets_the_next() -> None:
    ignored: list[str] = []

    async def stubborn(value: Any) -> None:
        for _ in range(2):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                ignored.append("ignored")
        await anyio.sleep_forever()

    with anyio.fail_after(30), anyio.move_on_after(SHORT) as scope:
        await bus_of(stubborn, quick, stubborn).gather("x", 1)
    assert scope.cancelled_caught
    assert ignored == ["ignored"] * 4


async def test_the_cancellation_of_its_task_is_passed_on(on_asyncio: None) -> None:
    ended: list[int] = []

    async def hangs(value: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    bus = bus_of(hangs, hangs)
    task = asyncio.create_task(bus.gather("x", 1))
    await asyncio.sleep(SHORT)
    task.cancel("by the test")
    with pytest.raises(asyncio.CancelledError, match="by the test"):
        await task
    assert ended == [1, 1]


async def test_a_cancellation_meets_a_failure(on_asyncio: None, faults: Any) -> None:
    """The failure is reported, and the cancellation is not lost."""

    async def hangs(value: Any) -> None:
        await asyncio.sleep(60)

    async def fails_late(value: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError

    bus = Bus()
    bus.declare(Event("x", fails_closed=True, doc="Something."))
    seen = faults(bus)
    bus.on("x", hangs)
    bus.on("x", fails_late)
    task = asyncio.create_task(bus.gather("x", 1))
    await asyncio.sleep(SHORT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(error) for error, _ in seen] == [ValueError]


async def test_a_native_cancellation_after_one_of_a_scope_wins(on_asyncio: None) -> None:
    async def tidy(value: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(5 * SHORT)

    async def gather() -> None:
        with anyio.move_on_after(SHORT):
            await bus_of(tidy, tidy).gather("x", 1)

    task = asyncio.create_task(gather())
    await asyncio.sleep(3 * SHORT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_of_it_that_is_cancelled_holds_nothing_up(on_asyncio: None) -> None:
    async def waits(value: Any) -> str:
        await asyncio.sleep(SHORT)
        return "waited"

    bus = bus_of(waits, waits)
    before = asyncio.all_tasks()
    task = asyncio.create_task(bus.gather("x", 1))
    await asyncio.sleep(0)
    [one, _] = sorted(asyncio.all_tasks() - before - {task}, key=lambda task: task.get_name())
    one.cancel()  # it has not begun
    async with asyncio.timeout(30):
        assert await task == ["waited"]


async def test_a_failure_ends_the_others_where_it_ends_the_emission() -> None:
    ended: list[str] = []

    async def hangs(value: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("hangs")

    async def fails(value: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError("no")

    bus = Bus()
    bus.declare(Event("x", fails_closed=True, doc="Something."))
    bus.on("x", hangs)
    bus.on("x", fails)
    with anyio.fail_after(30), pytest.raises(ValueError, match="no"):
        await bus.gather("x", 1)
    assert ended == ["hangs"]
    bus.on("x", lambda value: 1 / 0, priority=-1)  # in the caller's task
    with anyio.fail_after(30), pytest.raises(ZeroDivisionError):
        await bus.gather("x", 1)


async def test_errors_that_an_event_names_are_raised_as_a_group() -> None:
    class Answer(Exception):
        pass

    async def answers(value: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise Answer

    bus = Bus()
    bus.declare(Event("x", stops=Answer, doc="Something."))
    bus.on("x", answers)
    bus.on("x", suspends)
    with pytest.raises(ExceptionGroup) as caught:
        await bus.gather("x", 1)
    assert [type(error) for error in caught.value.exceptions] == [Answer]


async def test_each_handler_has_a_copy_of_the_callers_variables() -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def sets(value: Any) -> str:
        before = variable.get()
        variable.set("handler")
        await anyio.lowlevel.checkpoint()
        return before

    bus = bus_of(sets, sets)
    variable.set("caller")
    assert await bus.gather("x", 1) == ["caller", "caller"]
    assert variable.get() == "caller"


async def test_a_time_limit_ends_one_of_them(faults: Any) -> None:
    bus = bus_of(anyio.sleep_forever, timeout=SHORT)
    seen = faults(bus)
    bus.on("x", suspends, timeout=30)
    bus.on("x", suspends)
    assert await bus.gather("x", 1) == ["suspends", "suspends"]
    assert len(seen) == 1


async def test_a_closed_one_cancels_its_handlers(on_asyncio: None) -> None:
    ended: list[int] = []

    async def hangs(value: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(1)

    coroutine = bus_of(hangs, hangs).gather("x", 1)
    coroutine.send(None)
    await asyncio.sleep(0)
    coroutine.close()
    await asyncio.sleep(SHORT)
    assert ended == [1, 1]


async def test_a_report_inside_a_report_is_logged_only() -> None:
    """Tasks of an emission are part of the report that the emission is part of."""
    bus = Bus()
    reports: list[BaseException] = []

    async def fails(*args: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError

    async def reporting(error: BaseException, origin: Any) -> None:
        reports.append(error)
        assert await bus.gather("y") == []

    bus.on("error:handle", reporting)
    bus.on("x", fails)
    bus.on("y", fails)
    bus.on("y", fails)
    with anyio.fail_after(30):
        await bus.emit("x", 1)
        await bus.emit("x", 1)
    assert len(reports) == 2


async def test_an_unload_cuts_a_handler_in_a_task_of_its_own(on_asyncio: None) -> None:
    began = anyio.Event()

    async def hangs(value: Any) -> None:
        began.set()
        await anyio.sleep_forever()

    async with Kernel(drain_timeout=SHORT) as kernel:
        load = {
            "name": "slow",
            "version": "1",
            "load": lambda context: context.hook("x", hangs, timeout=None),
        }
        await kernel.load(load)
        kernel.bus.on("x", quick)
        with anyio.fail_after(30):
            task = asyncio.create_task(kernel.bus.gather("x", 1))
            await began.wait()
            await kernel.unload("slow")
            assert await task == ["quick"]

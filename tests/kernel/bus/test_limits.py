"""Time limits: one that is reached ends its handler only, whatever stands around or inside."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import sys
import threading
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import Bus, HookTimeout, Kernel, TimeLimitError
from veko.extend import driven

pytestmark = pytest.mark.anyio
SHORT = 0.02


@pytest.fixture(params=["loop", "compiled"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the chain as a loop, or as generated code from the second emission on."""
    if request.param == "compiled":
        # A thousand emissions of a handler that hangs would take too long.
        monkeypatch.setattr("veko._bus.plans.HOT", 1)
    return str(request.param)


async def emitted(bus: Bus, event: str, value: Any = None) -> Any:
    """Emit twice: the second time on generated code, where the form says so."""
    await bus.emit(event, value)
    return await bus.emit(event, value)


async def test_a_limit_ends_its_handler_only(form: str, faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)
    cancelled: list[bool] = []

    async def hangs(value: Any) -> None:
        try:
            await anyio.sleep_forever()
        except BaseException:
            cancelled.append(True)
            raise

    bus.on("x", hangs, timeout=SHORT, owner="slow")
    bus.on("x", lambda value: value + 1)
    assert await emitted(bus, "x", 1) == 2
    assert cancelled == [True, True]
    for error, origin in seen:
        assert isinstance(error, HookTimeout)
        assert isinstance(error, TimeLimitError)
        assert "hangs" in str(error)
        assert "0.02" in str(error)
        assert (error.plugin, error.event) == ("slow", "x")
        assert (origin.plugin, origin.event) == ("slow", "x")
    assert len(seen) == 2


async def test_a_limit_reached_is_emitted_as_plugin_timeout_too() -> None:
    bus = Bus()
    seen: list[tuple[str, Any, Any]] = []
    for event in ("plugin:timeout", "plugin:error"):
        bus.on(event, lambda name, error, event=event: seen.append((event, name, type(error))))
    bus.on("x", anyio.sleep_forever, timeout=SHORT, owner="slow")
    await bus.emit("x")
    assert seen == [("plugin:timeout", "slow", HookTimeout), ("plugin:error", "slow", HookTimeout)]


async def test_strict_raises_the_time_out() -> None:
    bus = Bus()
    bus.on("x", anyio.sleep_forever, timeout=SHORT)
    with pytest.raises(HookTimeout):
        await bus.emit("x", strict=True)
    await anyio.lowlevel.checkpoint()


async def test_first_and_gather_leave_the_slow_out(faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)
    bus.on("x", anyio.sleep_forever, timeout=SHORT)
    bus.on("x", lambda: "fast")
    assert await bus.first("x") == "fast"
    assert await bus.gather("x") == ["fast"]
    assert len(seen) == 2


async def test_handlers_within_their_limit(form: str) -> None:
    bus = Bus()

    async def never_suspends(value: int) -> int:
        return value + 1

    async def suspends(value: int) -> int:
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        return value * 2

    async def fails(value: int) -> int:
        await anyio.lowlevel.checkpoint()
        raise ValueError

    bus.on("x", never_suspends, timeout=5)
    bus.on("x", suspends, timeout=5)
    bus.on("x", fails, timeout=5)
    assert await emitted(bus, "x", 1) == 4


async def test_a_handlers_own_time_out_is_no_time_limit(form: str, faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)

    async def inner(value: Any) -> str:
        with anyio.move_on_after(SHORT):
            await anyio.sleep_forever()
        return "moved on"

    async def raises(value: Any) -> None:
        with anyio.fail_after(SHORT):
            await anyio.sleep_forever()

    bus.on("x", inner, timeout=5)
    bus.on("x", raises, timeout=5)
    assert await emitted(bus, "x") == "moved on"
    assert [type(error) for error, _ in seen] == [TimeoutError, TimeoutError]


async def test_asyncio_timeouts_nest(form: str, faults: Any, on_asyncio: None) -> None:
    bus = Bus()
    seen = faults(bus)

    async def inner_first(value: Any) -> str:
        try:
            async with asyncio.timeout(SHORT):
                await asyncio.sleep(60)
        except TimeoutError:
            return "inner"
        return "none"

    async def outer_first(value: Any) -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(60)

    bus.on("x", inner_first, timeout=5)
    bus.on("x", outer_first, timeout=SHORT)
    async with asyncio.timeout(5):
        assert await emitted(bus, "x") == "inner"
    assert [type(error) for error, _ in seen] == [HookTimeout, HookTimeout]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_scope_around_the_emission_wins(form: str, faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)

    async def hangs(value: Any) -> None:
        with anyio.CancelScope():
            await anyio.sleep_forever()

    bus.on("x", hangs, timeout=5)
    if form == "compiled":
        with anyio.move_on_after(SHORT):
            await bus.emit("x")
    with anyio.move_on_after(SHORT) as scope:
        await bus.emit("x")
    assert scope.cancelled_caught
    assert seen == []
    await anyio.lowlevel.checkpoint()  # the scopes are intact


async def test_limits_inside_limits(form: str) -> None:
    bus = Bus()

    async def inner(value: Any) -> None:
        await anyio.sleep_forever()

    async def outer(value: Any) -> str:
        await bus.emit("inner")
        return "went on"

    bus.on("inner", inner, timeout=SHORT)
    bus.on("x", outer, timeout=5)
    assert await emitted(bus, "x") == "went on"


async def test_an_outer_limit_passes_through_an_inner_chain(faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)
    late: list[object] = []

    async def outer(value: Any) -> None:
        await bus.emit("inner")
        late.append("outer went on")

    bus.on("inner", anyio.sleep_forever, timeout=5)
    bus.on("inner", late.append)
    bus.on("x", outer, timeout=SHORT)
    bus.on("x", lambda value: "next")
    assert await bus.emit("x") == "next"
    assert late == []
    assert [type(error) for error, _ in seen] == [HookTimeout]


async def test_task_groups_inside_a_limited_handler(form: str) -> None:
    bus = Bus()

    async def handler(value: Any) -> int:
        done: list[int] = []

        async def work(number: int) -> None:
            await anyio.lowlevel.checkpoint()
            done.append(number)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(work, number)
        return len(done)

    async def hangs(value: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)

    bus.on("x", handler, timeout=5)
    bus.on("x", hangs, timeout=SHORT)
    assert await emitted(bus, "x") == 3


async def test_a_handler_that_ends_in_spite_of_its_cancellation_has_answered() -> None:
    bus = Bus()

    async def stubborn(value: Any) -> str:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():  # a bad habit, and a common one
            return "finished"

    bus.on("x", stubborn, timeout=SHORT)
    assert await bus.emit("x") == "finished"
    await anyio.lowlevel.checkpoint()


async def test_a_sync_handler_has_no_limit() -> None:
    bus = Bus()
    bus.on("x", lambda value: value + 1, timeout=0.000001)
    assert await bus.emit("x", 1) == 2


async def test_plugins_hooks_have_the_kernels_limit() -> None:
    async with Kernel(hook_timeout=SHORT) as kernel:

        def load(context: Any) -> None:
            assert context.hook("x", anyio.sleep_forever).timeout == SHORT
            assert context.hook("y", anyio.sleep, timeout=None).timeout is None
            assert context.hook("z", anyio.sleep, timeout=3).timeout == 3

        record = await kernel.load({"name": "slow", "version": "1", "load": load})
        await kernel.bus.emit("x")
        assert record.error_count == 1
    async with Kernel() as kernel:
        record = await kernel.load(
            {"name": "p", "version": "1", "load": lambda context: context.hook("x", print)}
        )
        [entry] = kernel.registry.hooks("x")
        assert entry.value.timeout == 5.0


async def test_a_handler_that_swallows_its_limit_is_closed_in_the_end() -> None:
    bus = Bus()
    errors: list[Any] = []
    ended: list[str] = []
    bus.on("plugin:error", lambda name, error: errors.append(error))

    async def stubborn() -> None:
        try:
            while True:
                with contextlib.suppress(anyio.get_cancelled_exc_class()):
                    await anyio.sleep(30)
        finally:
            ended.append("ended")

    bus.on("x", stubborn, timeout=0.02)
    with anyio.fail_after(10):
        assert await bus.emit("x", 1) == 1
    assert ended == ["ended"]
    assert [type(error) for error in errors] == [HookTimeout]


async def test_a_handler_may_clean_up_after_its_limit() -> None:
    bus = Bus()
    errors: list[Any] = []
    cleaned: list[str] = []
    bus.on("plugin:error", lambda name, error: errors.append(error))

    async def tidy() -> None:
        try:
            await anyio.sleep(30)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                cleaned.append("cleaned")

    bus.on("x", tidy, timeout=0.02)
    assert await bus.emit("x", 1) == 1
    assert cleaned == ["cleaned"]
    assert [type(error) for error in errors] == [HookTimeout]


async def test_time_limits_of_its_own_end_no_driven_coroutine() -> None:
    async def work() -> int:
        rounds = 0
        for _ in range(6):
            with anyio.move_on_after(0.02):
                await anyio.sleep_forever()
            rounds += 1
        return rounds

    assert await driven(work(), grace=0.03) == 6


async def test_a_driven_coroutine_that_swallows_cancellation_is_closed_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                with anyio.move_on_after(60):
                    await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                swallowed += 1

    with anyio.fail_after(10), anyio.move_on_after(0.02) as scope:
        await driven(stubborn(), grace=0.05)
    assert scope.cancelled_caught
    assert swallowed > 0


async def test_a_limit_is_kept_wherever_a_handler_may_suspend(form: str) -> None:
    class Async:
        async def __call__(self, value: Any) -> None:
            await anyio.sleep_forever()

        async def method(self, value: Any) -> None:
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(anyio.sleep_forever)

    async def iterates(value: Any) -> None:
        async for _ in forever():
            raise AssertionError

    async def forever() -> Any:
        await anyio.sleep_forever()
        yield

    async def function(other: Any, value: Any) -> None:
        await other()

    for handler in (Async(), Async().method, iterates):
        bus = Bus()
        bus.on("x", handler, timeout=SHORT)
        with anyio.fail_after(10):
            assert await emitted(bus, "x", 1) == 1
    bus = Bus()
    bus.on("x", functools.partial(function, anyio.sleep_forever), timeout=SHORT)
    with anyio.fail_after(10):
        assert await emitted(bus, "x", 1) == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="marks no function as async")
async def test_a_limited_chain_takes_whatever_can_be_awaited(form: str) -> None:
    bus = Bus()

    class Answer:
        def __init__(self, value: int) -> None:
            self.value = value

        def __await__(self) -> Any:
            yield from anyio.lowlevel.checkpoint().__await__()
            return self.value * 2

    async def limited(value: int) -> int:
        await anyio.lowlevel.checkpoint()
        return value + 1

    bus.on("x", limited, timeout=5)
    bus.on("x", inspect.markcoroutinefunction(lambda value: Answer(value)))
    assert await emitted(bus, "x", 1) == 4


async def test_calls_of_one_limit_expire_in_their_order(faults: Any) -> None:
    """Most end before the limit, in any order; those that hang expire, each for itself."""
    bus = Bus()
    seen = faults(bus)

    async def sleeps(seconds: float) -> None:
        await anyio.sleep(seconds)

    bus.on("x", sleeps, timeout=0.2)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for seconds in (60, 0, 0.01, 60, 0, 0.005, 60):
                group.start_soon(bus.emit, "x", seconds)
            await anyio.sleep(0.1)
            assert seen == []
            group.start_soon(bus.emit, "x", 60)
    assert [type(error) for error, _ in seen] == [HookTimeout] * 4


async def test_a_failure_after_a_suspension_has_no_other_error_around_it(
    form: str, faults: Any
) -> None:
    bus = Bus()
    seen = faults(bus)

    async def fails(value: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError

    bus.on("x", fails, timeout=5)
    await emitted(bus, "x")
    assert [error.__context__ for error, _ in seen] == [None, None]


async def test_a_limit_keeps_neither_its_loop_nor_what_it_limits(on_asyncio: None) -> None:
    bus = Bus()
    held = contextvars.ContextVar[object]("held")

    class Thing:
        pass

    async def handler(value: Any) -> None:
        await asyncio.sleep(0)

    bus.on("x", handler, timeout=60)
    references: list[Any] = []

    async def emit() -> None:
        thing = Thing()
        references.append(weakref.ref(thing))
        held.set(thing)
        await bus.emit("x", thing)

    await asyncio.create_task(emit())
    await asyncio.sleep(0)  # the task itself lasts until its turn is over
    gc.collect()
    assert references[0]() is None

    def run() -> None:
        loop = asyncio.new_event_loop()
        references.append(weakref.ref(loop))
        loop.run_until_complete(bus.emit("x", 1))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    gc.collect()
    assert references[1]() is None

"""Ten races that people write, planted in plugins: each is found; corrected, each passes.

Every scenario has a `correct` form that differs in the lines of the mistake only.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from veko import Context, Kernel, LoadTimeout
from veko.testing import Deadlock, Simulation, SimulationFailure, TaskLeft, simulate

RUNS = 300
"""Runs of the corrected form. Each mistake is found in far fewer."""
SECONDS = 60.0
Race = Callable[[Simulation, bool], Coroutine[Any, Any, None]]


class Shop:
    """A kernel with one plugin and what went wrong in it."""

    def __init__(self, load: Callable[..., Any], **more: Any) -> None:
        self.kernel = Kernel(hook_timeout=None)
        self.plugin = {"name": "shop", "version": "1.0.0", "load": load} | more
        self.errors: list[BaseException] = []

    async def __aenter__(self) -> Kernel:
        kernel = await self.kernel.__aenter__()
        kernel.bus.on("error:handle", lambda error, origin: self.errors.append(error))
        await kernel.load(self.plugin)
        return kernel

    async def __aexit__(self, *error: object) -> None:
        await self.kernel.__aexit__(*error)
        if self.errors:
            raise self.errors[0]


async def lost_update_over_an_await(simulation: Simulation, correct: bool) -> None:
    sold = 0
    lock = asyncio.Lock()

    async def sell() -> None:
        nonlocal sold
        if correct:
            async with lock:
                now = sold
                await asyncio.sleep(0)
                sold = now + 1
        else:
            now = sold
            await asyncio.sleep(0)
            sold = now + 1

    async with Shop(lambda context: context.hook("sell", sell)) as kernel:
        await both(simulation, lambda: kernel.bus.emit("sell"), lambda: kernel.bus.emit("sell"))
    assert sold == 2


async def check_before_an_await(simulation: Simulation, correct: bool) -> None:
    stock = 1

    async def take() -> None:
        nonlocal stock
        if stock and correct:
            stock -= 1
            await asyncio.sleep(0)  # the payment
        elif stock:
            await asyncio.sleep(0)
            stock -= 1

    async with Shop(lambda context: context.hook("take", take)) as kernel:
        await both(simulation, lambda: kernel.bus.emit("take"), lambda: kernel.bus.emit("take"))
    assert stock == 0


async def lock_held_over_a_cancellation(simulation: Simulation, correct: bool) -> None:
    lock = asyncio.Lock()

    async def write() -> None:
        await lock.acquire()
        if correct:
            try:
                await asyncio.sleep(0)
            finally:
                lock.release()
        else:
            await asyncio.sleep(0)
            lock.release()

    async with Shop(lambda context: context.hook("write", write)) as kernel:
        await simulation.interrupted(kernel.bus.emit("write"))
        await kernel.bus.emit("write")


async def task_that_outlives_its_plugin(simulation: Simulation, correct: bool) -> None:
    open_now = False
    tasks = []

    def load(context: Context) -> None:
        nonlocal open_now
        open_now = True

        async def save() -> None:
            await asyncio.sleep(0)
            assert open_now, "saved after unload()"

        def order() -> None:
            if correct:
                context.spawn(save)
            else:
                tasks.append(asyncio.create_task(save()))

        context.hook("order", order)

    def unload() -> None:
        nonlocal open_now
        open_now = False

    async with Shop(load, unload=unload) as kernel:
        await both(simulation, lambda: kernel.bus.emit("order"), lambda: kernel.unload("shop"))


async def double_start(simulation: Simulation, correct: bool) -> None:
    started = 0
    connection: list[int] = []
    lock = asyncio.Lock()

    async def connect() -> None:
        nonlocal started
        started += 1
        await asyncio.sleep(0.1)
        connection.append(started)

    async def query() -> None:
        if correct:
            async with lock:
                if not connection:
                    await connect()
        elif not connection:
            await connect()

    async with Shop(lambda context: context.hook("query", query)) as kernel:
        await both(simulation, lambda: kernel.bus.emit("query"), lambda: kernel.bus.emit("query"))
    assert started == 1


async def event_waited_for_after_it_was_cleared(simulation: Simulation, correct: bool) -> None:
    changed, version = asyncio.Event(), 0

    def load(context: Context) -> None:
        async def follow() -> None:
            if correct and version:
                return
            await changed.wait()

        def change() -> None:
            nonlocal version
            version += 1
            changed.set()
            changed.clear()

        context.hook("follow", follow)
        context.hook("change", change)

    async with Shop(load) as kernel:
        await both(simulation, lambda: kernel.bus.emit("follow"), lambda: kernel.bus.emit("change"))


async def iteration_over_a_dict_that_changes(simulation: Simulation, correct: bool) -> None:
    rooms = {"a": 0, "b": 0}

    def load(context: Context) -> None:
        async def broadcast() -> None:
            for name in list(rooms) if correct else rooms:
                await asyncio.sleep(0)
                rooms[name] = 1

        def enter() -> None:
            rooms["c"] = 0

        context.hook("broadcast", broadcast)
        context.hook("enter", enter)

    async with Shop(load) as kernel:
        await both(
            simulation, lambda: kernel.bus.emit("broadcast"), lambda: kernel.bus.emit("enter")
        )


async def two_locks_in_two_orders(simulation: Simulation, correct: bool) -> None:
    stock, money = anyio.Lock(), anyio.Lock()

    def load(context: Context) -> None:
        async def buy() -> None:
            async with stock, money:
                await asyncio.sleep(0)

        async def refund() -> None:
            first, second = (stock, money) if correct else (money, stock)
            async with first, second:
                await asyncio.sleep(0)

        context.hook("buy", buy)
        context.hook("refund", refund)

    async with Shop(load) as kernel:
        await both(simulation, lambda: kernel.bus.emit("buy"), lambda: kernel.bus.emit("refund"))


async def cancellation_swallowed(simulation: Simulation, correct: bool) -> None:
    tasks = []

    async def poll() -> None:
        while True:
            try:
                await asyncio.sleep(0.05)  # a request
            except BaseException:
                if correct:
                    raise
            await asyncio.sleep(0.05)

    def load(context: Context) -> None:
        tasks.append(asyncio.create_task(poll()))

    async def unload() -> None:
        tasks[0].cancel()
        await asyncio.wait(tasks)

    async with Shop(load, unload=unload) as kernel:
        await simulation.pause()
        await kernel.unload("shop")


async def stale_generation_after_a_reload(simulation: Simulation, correct: bool) -> None:
    class Prices:
        closed = False

        def of(self, article: str) -> int:
            assert not self.closed, "used after its plugin was reloaded"
            return 1

    def version(number: int) -> dict[str, Any]:
        prices = Prices()

        def load(context: Context) -> None:
            context.provide("prices", prices)

        def unload() -> None:
            prices.closed = True

        return {"name": "shop", "version": f"{number}.0.0", "load": load, "unload": unload}

    async with Shop(**version(1)) as kernel:

        async def look_up() -> None:
            prices = kernel.use("prices")
            await asyncio.sleep(0)  # the articles
            if correct:
                prices = kernel.use("prices")
            prices.of("tea")

        await both(simulation, look_up, lambda: kernel.reload(version(2)))


async def both(
    simulation: Simulation, one: Callable[[], Any], other: Callable[[], Any], others: int = 3
) -> None:
    """Run two operations side by side, each a drawn time later, among tasks that do not matter."""

    async def run(operation: Callable[[], Any]) -> None:
        await simulation.pause()
        await operation()

    async with anyio.create_task_group() as group:
        group.start_soon(run, one, name="one")
        for _ in range(others):
            group.start_soon(simulation.pause)
        group.start_soon(run, other, name="other")


RACES: dict[Race, type[BaseException]] = {
    lost_update_over_an_await: AssertionError,
    check_before_an_await: AssertionError,
    lock_held_over_a_cancellation: Deadlock,
    task_that_outlives_its_plugin: AssertionError,
    double_start: AssertionError,
    event_waited_for_after_it_was_cleared: Deadlock,
    iteration_over_a_dict_that_changes: RuntimeError,
    two_locks_in_two_orders: Deadlock,
    cancellation_swallowed: LoadTimeout,
    stale_generation_after_a_reload: AssertionError,
}


def form(race: Race, correct: bool) -> Callable[[Simulation], Coroutine[Any, Any, None]]:
    async def scenario(simulation: Simulation) -> None:
        await race(simulation, correct)

    scenario.__name__ = race.__name__
    return scenario


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
def test_a_planted_race_is_found_reduced_and_repeated(race: Race) -> None:
    begin = time.monotonic()
    with pytest.raises(SimulationFailure) as caught:
        simulate(form(race, False))
    assert time.monotonic() - begin < SECONDS
    failure = caught.value
    assert failure.reproduced
    assert isinstance(failure.__cause__, (RACES[race], TaskLeft))
    assert len(failure.decisions) <= 8, failure
    with pytest.raises(SimulationFailure) as again:
        simulate(form(race, False), seed=failure.seed)
    assert type(again.value.__cause__) is type(failure.__cause__)
    assert again.value.seed == failure.seed
    assert again.value.decisions == failure.decisions


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
def test_what_is_correct_passes(race: Race) -> None:
    done = simulate(form(race, True), runs=RUNS)
    assert done.runs == RUNS
    assert done.orders > RUNS / 10

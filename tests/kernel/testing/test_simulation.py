"""Simulation: what is virtual, what is refused, what is found, and that a seed repeats it."""

import asyncio
import datetime
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from veko.errors import OptionError, VekoError
from veko.testing import (
    Deadlock,
    EndlessRun,
    NotSimulated,
    Simulation,
    SimulationFailure,
    TaskLeft,
    simulate,
)


def fails(scenario: Any, **options: Any) -> SimulationFailure:
    with pytest.raises(SimulationFailure) as caught:
        simulate(scenario, **options)
    return caught.value


# -- time


def test_time_is_virtual() -> None:
    async def scenario(simulation: Simulation) -> None:
        begin, wall, counter = time.monotonic(), time.time(), time.perf_counter_ns()
        await asyncio.sleep(3_600)
        with anyio.move_on_after(3_600):
            await anyio.sleep_forever()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3_600):
                await asyncio.Event().wait()
        assert time.monotonic() - begin == pytest.approx(10_800)
        assert monotonic() == time.monotonic()
        assert time.time() - wall == pytest.approx(10_800)
        assert (time.perf_counter_ns() - counter) / 1e9 == pytest.approx(10_800)
        assert simulation.time == pytest.approx(10_800)
        assert datetime.datetime.fromtimestamp(wall, datetime.UTC).year == 2026

    begin, real = time.monotonic(), time.monotonic
    done = simulate(scenario, runs=20)
    assert time.monotonic() - begin < 60
    assert done.virtual_seconds == pytest.approx(20 * 10_800)
    assert time.monotonic is real


def test_code_that_blocks_lets_time_pass() -> None:
    async def scenario(simulation: Simulation) -> None:
        time.sleep(5)  # noqa: ASYNC251
        assert simulation.time == pytest.approx(5, abs=0.01)

    simulate(scenario, runs=5)


def test_timers_fire_in_order() -> None:
    async def scenario(simulation: Simulation) -> None:
        seen: list[int] = []
        loop = asyncio.get_running_loop()
        for number, delay in enumerate([0.3, 0.1, 0.2, 0.1]):
            loop.call_later(delay, seen.append, number)
        loop.call_later(0.15, seen.append, 9).cancel()
        await asyncio.sleep(1)
        assert seen == [1, 3, 2, 0]

    simulate(scenario, runs=20)


# -- order


def test_tasks_run_in_many_orders_and_callbacks_in_theirs() -> None:
    orders: set[tuple[int, ...]] = set()

    async def scenario(simulation: Simulation) -> None:
        tasks: list[int] = []
        calls: list[int] = []

        async def note(number: int) -> None:
            tasks.append(number)

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(note, number)
                asyncio.get_running_loop().call_soon(calls.append, number)
        assert calls == [0, 1, 2, 3]
        orders.add(tuple(tasks))

    done = simulate(scenario, runs=500)
    assert len(orders) >= 20  # of 24
    assert done.orders >= 20


def test_run_0_has_the_usual_order() -> None:
    async def scenario(simulation: Simulation) -> None:
        seen: list[int] = []

        async def note(number: int) -> None:
            for turn in range(3):
                seen.append(10 * turn + number)
                await asyncio.sleep(0)

        await asyncio.gather(*(note(number) for number in range(3)))
        assert seen == [0, 1, 2, 10, 11, 12, 20, 21, 22]

    simulate(scenario, seed=0)


def test_a_loop_that_yields_keeps_nobody_from_running() -> None:
    async def scenario(simulation: Simulation) -> None:
        over = False

        async def ask() -> None:
            while not over:  # noqa: ASYNC110
                await asyncio.sleep(0)

        async def end() -> None:
            nonlocal over
            await simulation.pause()
            over = True

        await asyncio.gather(ask(), ask(), end())

    simulate(scenario, runs=300, steps=20_000)


# -- what depends on the seed


def test_random_values_depend_on_the_seed() -> None:
    seen: list[tuple[Any, ...]] = []

    async def scenario(simulation: Simulation) -> None:
        seen.append((
            random.random(), uuid.uuid4(), secrets.token_hex(8), os.urandom(4),
            simulation.random.random(), simulation.integer(1, 1_000), simulation.chance(),
            simulation.choose("abc"), tuple(simulation.times(5)),
        ))  # fmt: skip
        await asyncio.sleep(0)

    state = random.getstate()
    simulate(scenario, seed=3)
    simulate(scenario, seed=3)
    simulate(scenario, seed=4)
    assert seen[0] == seen[1] != seen[2]
    assert random.getstate() == state
    assert uuid.uuid4() != uuid.uuid4()


PROGRAM = """
import asyncio, sys
import anyio
from veko import Kernel
from veko.testing import simulate

async def scenario(simulation):
    async def load(context):
        async def slow(value):
            await asyncio.sleep(simulation.choose([0, 0.1]))
            return value
        context.hook("x", slow)
        for _ in range(3):
            context.spawn(anyio.sleep_forever)
        await anyio.to_thread.run_sync(len, ())
    async with Kernel() as kernel:
        names = ["a", "b", "c"]
        for name in names:
            await kernel.load({"name": name, "version": "1", "load": load})
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(kernel.bus.emit, "x", 1)
                group.start_soon(simulation.choose([kernel.toggle, kernel.unload]), name)
            with anyio.move_on_after(0.05):
                await kernel.bus.emit("x", 2)

done = simulate(scenario, runs=60)
print(done.digest, done.steps, done.orders)
"""


def test_the_same_seed_is_the_same_run_in_another_process() -> None:
    seen = set()
    for hash_seed in ("0", "1", "4711"):
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert ran.returncode == 0, ran.stderr
        seen.add(ran.stdout)
    assert len(seen) == 1, seen


# -- what is found


def test_a_deadlock_is_found_at_once_with_what_each_task_waits_for() -> None:
    async def scenario(simulation: Simulation) -> None:
        one, other = asyncio.Lock(), asyncio.Lock()

        async def take(first: asyncio.Lock, second: asyncio.Lock) -> None:
            async with first:
                await asyncio.sleep(1)
                async with second:
                    pass

        async with asyncio.TaskGroup() as group:
            group.create_task(take(one, other), name="left")
            group.create_task(take(other, one), name="right")

    failure = fails(scenario)
    assert isinstance(failure.__cause__, Deadlock)
    text = str(failure)
    assert "'left' waits" in text
    assert "'right' waits" in text
    assert "async with second" in text
    assert "test_simulation.py" in text


def test_a_task_that_waits_for_another_names_it() -> None:
    async def scenario(simulation: Simulation) -> None:
        task = asyncio.create_task(asyncio.Event().wait(), name="the other")
        await task

    assert "waits for the task 'the other'" in str(fails(scenario))


def test_an_endless_loop_is_found() -> None:
    async def scenario(simulation: Simulation) -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    failure = fails(scenario, steps=2_000)
    assert isinstance(failure.__cause__, EndlessRun)
    assert "2,000 steps, in which" in str(failure)
    assert "await asyncio.sleep(0)" in str(failure)


def test_a_scenario_that_never_ends_is_found() -> None:
    async def scenario(simulation: Simulation) -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(60)

    assert isinstance(fails(scenario, steps=2_000).__cause__, EndlessRun)


def test_a_step_that_never_ends_is_found() -> None:
    async def scenario(simulation: Simulation) -> None:
        while True:
            pass

    failure = fails(scenario, step_seconds=0.2)
    assert isinstance(failure.__cause__, EndlessRun)
    assert "test_simulation.py" in str(failure)


def test_a_task_that_is_left_is_found() -> None:
    tasks: list[Any] = []

    async def scenario(simulation: Simulation) -> None:
        tasks.append(asyncio.create_task(asyncio.sleep(60), name="left"))

    failure = fails(scenario)
    assert isinstance(failure.__cause__, TaskLeft)
    assert "'left' waits" in str(failure)


def test_a_task_that_is_about_to_end_is_not_left() -> None:
    tasks: list[Any] = []

    async def scenario(simulation: Simulation) -> None:
        tasks.append(asyncio.create_task(asyncio.sleep(0)))

    simulate(scenario, runs=20)


def test_an_error_in_a_task_that_nobody_awaits_is_found() -> None:
    tasks: list[Any] = []

    async def fail() -> None:
        raise ValueError("broken")

    async def scenario(simulation: Simulation) -> None:
        tasks.append(asyncio.create_task(fail(), name="alone"))
        await asyncio.sleep(1)

    failure = fails(scenario)
    assert isinstance(failure.__cause__, ValueError)
    assert "'alone'" in failure.__cause__.__notes__[0]


def test_an_error_in_a_callback_is_found() -> None:
    async def scenario(simulation: Simulation) -> None:
        asyncio.get_running_loop().call_soon(int, "x")
        await asyncio.sleep(1)

    assert isinstance(fails(scenario).__cause__, ValueError)


# -- what no simulation has


async def in_loop(simulation: Simulation) -> None:
    await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)


async def stream(simulation: Simulation) -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def over_anyio(simulation: Simulation) -> None:
    await anyio.connect_tcp("127.0.0.1", 1)


async def blocking_socket(simulation: Simulation) -> None:
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", 1))


async def process(simulation: Simulation) -> None:
    await asyncio.create_subprocess_exec(sys.executable, "-c", "")


async def blocking_process(simulation: Simulation) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)  # noqa: ASYNC221


async def thread(simulation: Simulation) -> None:
    threading.Thread(target=int).start()


async def from_thread(simulation: Simulation) -> None:
    await anyio.to_thread.run_sync(anyio.from_thread.run, anyio.sleep, 1)


@pytest.mark.parametrize(
    ("scenario", "call"),
    [
        (in_loop, "loop.create_server()"),
        (stream, "loop.create_connection()"),
        (over_anyio, "loop.create_connection()"),
        (blocking_socket, "socket.connect"),
        (process, "loop.subprocess_exec()"),
        (blocking_process, "subprocess.Popen"),
        (thread, "threading.Thread.start()"),
        (from_thread, "anyio.from_thread.run()"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_not_simulated_is_refused_by_name(scenario: Any, call: str) -> None:
    failure = fails(scenario)
    assert isinstance(failure.__cause__, NotSimulated)
    assert failure.__cause__.call == call


def test_what_was_refused_fails_the_run_though_it_is_caught() -> None:
    async def scenario(simulation: Simulation) -> None:
        try:
            threading.Thread(target=int).start()
        except Exception:
            pass

    assert isinstance(fails(scenario).__cause__, NotSimulated)


def test_other_threads_are_not_affected() -> None:
    async def scenario(simulation: Simulation) -> None:
        ask.set()
        while not answers:
            time.sleep(0)  # noqa: ASYNC251

    ask = threading.Event()
    answers: list[float] = []

    def other() -> None:
        ask.wait(30)
        begin = time.monotonic()
        time.sleep(0.01)
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
        answers.append(time.monotonic() - begin)

    running = threading.Thread(target=other)
    running.start()
    try:
        simulate(scenario, seed=0)
    finally:
        running.join()
    assert answers[0] >= 0.01


def test_executors_run_in_tasks() -> None:
    async def scenario(simulation: Simulation) -> None:
        seen: list[str] = []

        def work(name: str) -> str:
            assert anyio.from_thread.run_sync(lambda: name) == name
            seen.append(name)
            return name

        answers = await asyncio.gather(
            asyncio.to_thread(seen.append, "a"),
            asyncio.get_running_loop().run_in_executor(None, seen.append, "b"),
            anyio.to_thread.run_sync(work, "c"),
        )
        assert sorted(seen) == ["a", "b", "c"]
        assert answers == [None, None, "c"]
        with pytest.raises(ZeroDivisionError):
            await anyio.to_thread.run_sync(lambda: 1 / 0)

    assert simulate(scenario, runs=100).orders > 10


def test_thread_pools_run_in_tasks_in_their_order() -> None:
    async def scenario(simulation: Simulation) -> None:
        seen: list[int] = []
        with ThreadPoolExecutor(1) as threads:
            first = asyncio.wrap_future(threads.submit(seen.append, 1))
            threads.submit(seen.append, 2)
            assert threads.submit(len, "abc").result() == 3
            assert seen == [1, 2]
            await first
            failed = threads.submit(int, "x")
            with pytest.raises(ValueError):
                await asyncio.wrap_future(failed)
            threads.submit(seen.append, 3)
        assert seen == [1, 2, 3]

    simulate(scenario, runs=50)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(threading.get_ident).result() != threading.get_ident()


def test_files_are_real(tmp_path: Path) -> None:
    async def scenario(simulation: Simulation) -> None:
        file = anyio.Path(tmp_path / "file")
        await file.write_text("text")
        async with await anyio.open_file(file) as opened:
            assert await opened.read() == "text"

    simulate(scenario, runs=5)


# -- failures


def test_a_failure_is_reduced_and_says_what_differed() -> None:
    async def scenario(simulation: Simulation) -> None:
        sold = 0

        async def sell() -> None:
            nonlocal sold
            simulation.note("sold")
            now = sold
            await asyncio.sleep(0)
            sold = now + 1

        async def look() -> None:
            await asyncio.sleep(0)

        for _ in simulation.times(20):
            simulation.choose([look, look])
            await simulation.choose([look, sell])()
        before = sold
        async with anyio.create_task_group() as group:
            group.start_soon(sell, name="first")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            group.start_soon(sell, name="second")
        assert sold == before + 2, "one is lost"

    assert simulate(scenario, seed=0).runs == 1  # the usual order is fine
    failure = fails(scenario)
    assert failure.found_with != 0
    assert len(failure.notes) == 2, failure.notes
    assert 1 <= len(failure.decisions) <= 2
    assert "'first' (test_simulation.py:" in failure.decisions[-1]
    assert failure.seed.split("/")[1] == "0", "no operation is left that it does not need"
    assert fails(scenario, seed=failure.seed).decisions == failure.decisions
    assert failure.seed in str(failure)


def test_what_depends_on_something_else_is_said_not_to_be_reproduced() -> None:
    runs = 0

    async def scenario(simulation: Simulation) -> None:
        nonlocal runs
        runs += 1
        assert runs != 5

    failure = fails(scenario)
    assert not failure.reproduced
    assert "outside the simulation" in str(failure)


def test_the_log_of_the_reported_run_is_shown_alone(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    async def scenario(simulation: Simulation) -> None:
        logging.getLogger("shop").warning("run %d", simulation.seed)
        assert simulation.seed != 7

    fails(scenario)
    assert [record.message for record in caplog.records] == ["run 7"]


@pytest.mark.parametrize("seed", ["", "x", "1/2", "1/a/", "1//2", "1//x:1", "1//1:2:", "a//"])
def test_a_text_that_is_no_seed_is_refused(seed: str) -> None:
    async def scenario(simulation: Simulation) -> None: ...

    with pytest.raises(VekoError, match="not the seed of a simulation"):
        simulate(scenario, seed=seed)


@pytest.mark.parametrize("options", [{"runs": 0}, {"steps": 0}])
def test_senseless_arguments_are_refused(options: dict[str, Any]) -> None:
    async def scenario(simulation: Simulation) -> None: ...

    with pytest.raises(OptionError):
        simulate(scenario, **options)


async def test_it_is_refused_in_a_running_loop(on_asyncio: None) -> None:
    async def scenario(simulation: Simulation) -> None: ...

    with pytest.raises(RuntimeError, match="while an event loop runs"):
        simulate(scenario)


@pytest.mark.parametrize("make", [lambda: None, lambda: int, lambda: print])
def test_a_scenario_that_is_not_async_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(OptionError, match="async def"):
        simulate(make())


def test_interrupted_work_is_cancelled_or_ends() -> None:
    ended: set[bool] = set()

    async def scenario(simulation: Simulation) -> None:
        async def work() -> bool:
            await asyncio.sleep(0.05)
            return True

        ended.add(await simulation.interrupted(work()) is True)

    simulate(scenario, runs=50)
    assert ended == {True, False}


def test_importing_veko_does_not_import_it() -> None:
    program = "import sys, veko; print('veko.testing' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"


def test_a_step_that_was_ended_leaves_nothing_pending() -> None:
    program = """
import sys
from veko.testing import SimulationFailure, simulate

async def spins(simulation):
    while True:
        pass

async def ends(simulation):
    return None

for scenario in (ends, spins):
    try:
        simulate(scenario, runs=1, step_seconds=0.2)
    except SimulationFailure:
        pass

calls = []
sys.setprofile(lambda frame, event, arg: calls.append(event))
list(map(lambda one: one, range(10)))
sys.setprofile(None)
assert len(calls) > 10
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

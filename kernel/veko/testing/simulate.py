"""Simulate: run a scenario in many orders, and report the smallest run that fails."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from ..errors import OptionError
from .decisions import Decisions, Recorded
from .failures import Deadlock, EndlessRun, NotSimulated, SimulationFailure, TaskLeft
from .loop import SimulatedLoop
from .shrink import Reduction
from .simulation import Simulation
from .world import collect, world

__all__ = ["Scenario", "Simulated", "simulate"]

Scenario = Callable[[Simulation], Coroutine[Any, Any, None]]
_ATTEMPTS: Final = 500
_REDUCING: Final = 10.0
"""Real seconds within which attempts to make a failing run smaller begin."""
_SETTLING: Final = 1_000


class Simulated(msgspec.Struct, frozen=True):
    """What a simulation in which nothing failed has done.

    Attributes:
        runs: How many runs there were.
        orders: In how many different orders tasks ran.
        steps: How many steps they took in all.
        virtual_seconds: How much virtual time passed in them.
        seconds: How long it took.
        digest: Equal if the tasks ran in the same orders in another simulation.
    """

    runs: int
    orders: int
    steps: int
    virtual_seconds: float
    seconds: float
    digest: str


class _Run(msgspec.Struct):
    error: BaseException | None
    recorded: Recorded
    steps: int
    trace: int
    elapsed: float
    notes: list[str]
    differences: list[str]


def simulate(
    scenario: Scenario,
    *,
    runs: int | Iterable[int] = 1_000,
    seed: int | str | None = None,
    steps: int = 100_000,
    seconds: float | None = None,
    step_seconds: float = 30.0,
) -> Simulated:
    """Run a scenario in many orders of its tasks, each decided by a seed.

    Time is virtual and nothing waits. The same seed makes the same run, in each process. What the
    program logs is shown for the run that is reported only.

    Args:
        scenario: An `async def` that takes a `Simulation`, builds what it tests, and raises
            (`assert`) if something is wrong.
        runs: How many runs, or their numbers. Run 0 has the usual order of asyncio.
        seed: Only this run: its number, or the text that a failure shows.
        steps: How many steps a run may take.
        seconds: Begin no further run after so many real seconds; `None` for no limit.
        step_seconds: Real seconds after which a run that does not return to the loop is ended.

    Returns:
        What was done.

    Raises:
        SimulationFailure: A run failed: the scenario raised, deadlocked or did not end, a task
            failed while nobody waited for it or outlived the scenario, or something that cannot be
            simulated was called. It was made as small as it could be.
        OptionError: An argument is wrong.
        RuntimeError: An event loop runs in this thread.
    """
    __tracebackhide__ = True  # pytest shows the caller's line instead
    _check(scenario, runs, steps)
    name = getattr(scenario, "__name__", type(scenario).__name__)
    begin = time.monotonic()
    orders: set[int] = set()
    done, taken, virtual, digest = 0, 0, 0.0, 0
    with world(), _Watch(step_seconds) as watch:
        for decisions in _planned(runs, seed):
            run = _once(scenario, decisions, steps, watch)
            done += 1
            if run.error is not None:
                found = seed if isinstance(seed, str) else run.recorded.number
                failure = _failure(scenario, name, run, found, done, steps, watch)
                raise failure from failure.error
            orders.add(run.trace)
            digest = hash((digest, run.trace, run.steps))
            taken, virtual = taken + run.steps, virtual + run.elapsed
            collect(done)
            if seconds is not None and time.monotonic() - begin >= seconds:
                break
    return Simulated(
        done, len(orders), taken, virtual, time.monotonic() - begin, f"{digest & 2**64 - 1:016x}"
    )


def _check(scenario: Scenario, runs: int | Iterable[int], steps: int) -> None:
    called = getattr(scenario, "__call__", None)  # noqa: B004 - an object may be a scenario
    if not (inspect.iscoroutinefunction(scenario) or inspect.iscoroutinefunction(called)):
        raise OptionError(f"a scenario is an `async def` function, got {scenario!r}")
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            "simulate() is called while an event loop runs in this thread; call it from a `def`"
        )
    for name, value in (("runs", runs), ("steps", steps)):
        if isinstance(value, int) and value < 1:
            raise OptionError(f"{name} must be above 0, got {value}")


def _planned(runs: int | Iterable[int], seed: int | str | None) -> Iterable[Decisions]:
    if seed is None:
        return map(Decisions, range(runs) if isinstance(runs, int) else runs)
    if isinstance(seed, int):
        return [Decisions(seed)]
    if seed.isdecimal():
        return [Decisions(int(seed))]
    recorded = Recorded.parse(seed)
    return [Decisions(recorded.number, recorded)]


def _failure(
    scenario: Scenario,
    name: str,
    run: _Run,
    found: int | str,
    runs: int,
    steps: int,
    watch: _Watch,
) -> SimulationFailure:
    """Make a failing run smaller, repeat it with its log, and describe it."""
    assert run.error is not None
    kind, end = _kind(run.error), time.monotonic() + _REDUCING

    def still_fails(recorded: Recorded) -> Recorded | None:
        again = _once(scenario, Decisions(recorded.number, recorded), steps, watch)
        same = again.error is not None and _kind(again.error) == kind
        return again.recorded if same else None

    stuck = isinstance(run.error, EndlessRun) and isinstance(run.error.__cause__, _Stuck)
    reproduced = stuck or still_fails(run.recorded) is not None
    if reproduced and not stuck:
        smallest = Reduction(
            run.recorded, still_fails, _ATTEMPTS, lambda: time.monotonic() > end
        ).run()
        disabled = logging.root.manager.disable
        logging.disable(logging.NOTSET)
        try:
            last = _once(scenario, Decisions(smallest.number, smallest), steps, watch, verbose=True)
        finally:
            logging.disable(disabled)
        reproduced = last.error is not None
        run = last if reproduced else run
    assert run.error is not None
    return SimulationFailure(
        name,
        run.error,
        seed=str(run.recorded),
        found_with=found,
        decisions=run.differences,
        notes=run.notes,
        runs=runs,
        reproduced=reproduced,
    )


def _once(
    scenario: Scenario,
    decisions: Decisions,
    steps: int,
    watch: _Watch,
    verbose: bool = False,
) -> _Run:
    loop = SimulatedLoop(decisions, steps=steps)
    simulation = Simulation(loop)
    if verbose:
        loop.differences = []
    random.seed(f"random {decisions.number}")
    error: BaseException | None = None
    try:
        with watch.one_run():
            loop.run_until_complete(_main(scenario, simulation))
            loop.settle(_SETTLING)
    except _Stuck as stuck:
        line = traceback.extract_tb(stuck.__traceback__)[-1]
        error = EndlessRun(
            f"a step did not return to the event loop within {watch.seconds:g} s: it was at "
            f"{line.filename}:{line.lineno} in {line.name}"
        ).with_traceback(stuck.__traceback__)
        error.__cause__ = stuck
    except (KeyboardInterrupt, SystemExit):
        loop.dispose()
        raise
    except BaseException as raised:
        error = raised.with_traceback(_own(raised.__traceback__))
    refused = [failure for failure in loop.failures if isinstance(failure, NotSimulated)]
    if refused:
        error = refused[0]
    elif error is None:
        if loop.living():
            error = TaskLeft(loop.describe(loop.living()))
        else:
            error = next(iter([*loop.failures, *loop.unseen()]), None)
    run = _Run(
        _alone(error),
        decisions.recorded,
        loop.steps,
        loop.trace,
        loop.elapsed,
        simulation.notes,
        loop.differences or [],
    )
    if error is not None:
        loop.dispose()
    loop.close()
    return run


async def _main(scenario: Scenario, simulation: Simulation) -> None:
    await scenario(simulation)


def _own(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of the simulation, up to the first of the scenario."""
    here = str(Path(__file__).parent)
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(here):
        if trace.tb_next is None:
            return trace
        trace = trace.tb_next
    return trace


def _alone(error: BaseException | None) -> BaseException | None:
    """An error that is alone in its groups: task groups wrap what one task raised."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _kind(error: BaseException) -> tuple[object, ...]:
    """What makes two failures the same: the type, and the line that raised it."""
    if isinstance(error, (Deadlock, EndlessRun, TaskLeft)):
        return (type(error),)
    trace, line = error.__traceback__, None
    while trace is not None:
        line = (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return (type(error), line)


class _Stuck(BaseException):
    """Raised in the middle of a step that does not end."""


class _Watch:
    """Ends a run that does not return to the loop, from a thread of its own.

    It interrupts Python code only: a call in C that blocks is not ended.

    Args:
        seconds: After how long.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._home = threading.get_ident()
        self._lock = threading.Lock()
        self._began: float | None = None
        self._raised = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="veko-simulation", daemon=True)

    def _look(self) -> None:
        while not self._over.wait(min(1.0, self.seconds / 2)):
            with self._lock:
                if self._began is not None and time.monotonic() - self._began > self.seconds:
                    self._raised = True  # again and again: code may swallow it
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self._home), ctypes.py_object(_Stuck)
                    )

    @contextmanager
    def one_run(self) -> Iterator[None]:
        """Raise `_Stuck` in what runs inside if it does not end in time."""
        with self._lock:
            self._raised = False
            self._began = time.monotonic()
        try:
            yield
        finally:
            while self._began is not None:
                with suppress(_Stuck), self._lock:
                    self._began = None
            if self._raised:
                # It may not have arrived yet, and must arrive here. It cannot be taken back:
                # Python 3.11 would keep looking for it at each call, and a profiler would make
                # that an endless loop. Held by test_a_step_that_was_ended_leaves_nothing_pending.
                with suppress(_Stuck):
                    for _ in range(10_000):
                        pass

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

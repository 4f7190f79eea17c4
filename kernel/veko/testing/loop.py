"""The simulated event loop: virtual time, and an order of tasks that is decided, not found.

Tasks that are ready may run in any order, as on trio. Other callbacks keep theirs, and run before
whatever became ready after them, as asyncio promises. Time stands still while something is ready,
apart from a little for each step; then it jumps to the next timer.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import sys
import weakref
from asyncio import events
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final

from .decisions import Decisions
from .failures import Deadlock, EndlessRun, NotSimulated
from .refused import LoopWithoutIO
from .waiting import describe, name_of, position

__all__ = ["SimulatedLoop", "SimulatedTask"]

_BEGIN: Final = 1_000.0
_SHOWN: Final = 20
_CLEANING: Final = 10_000
_STANDING: Final = 10_000
"""Steps without a timer after which the next one is due: a loop that yields takes time, too."""


class SimulatedTask(asyncio.Task[Any]):
    """A task with a number, by which sets of tasks are ordered in the same way in each process."""

    def __init__(self, coro: Any, *, loop: SimulatedLoop, **options: Any) -> None:
        self.number = next(loop.numbers)
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    """A future with a number, for the same reason."""

    def __init__(self, *, loop: SimulatedLoop) -> None:
        self.number = next(loop.numbers)
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(LoopWithoutIO):
    """An event loop for one run.

    Args:
        decisions: Decide which task runs next.
        steps: How many steps the run may take.

    Attributes:
        simulated: Lets code that only watches the loop, from a thread, find out that it need not.
        decisions: Decide which task runs next.
        failures: Errors that nobody handled: in callbacks, and calls that were refused.
        steps: How many steps were taken.
        differences: What differs from the usual order, if it is to be written down.
        trace: A number that stands for the order in which tasks ran.
    """

    simulated: Final = True

    def __init__(self, decisions: Decisions, *, steps: int) -> None:
        super().__init__()
        self.decisions = decisions
        self.numbers = itertools.count(1)
        self.steps = 0
        self.differences: list[str] | None = None
        self.trace = 0
        self._limit = steps
        self._timed = 0
        self._time = _BEGIN
        self._ready: list[tuple[events.Handle, SimulatedTask | None, int]] = []
        self._timers: list[tuple[float, int, events.TimerHandle]] = []
        self._tasks: dict[int, SimulatedTask] = {}
        self._named = itertools.count(1)
        self._ran: Counter[int] = Counter()
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self._hashes: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._running = self._closed = self._stopping = self._cleaning = False
        self._handler: Callable[..., object] | None = None
        self._factory: Callable[..., Any] | None = None

    # -- time and callbacks

    def time(self) -> float:
        return self._time

    def advance(self, seconds: float) -> None:
        """Let time pass, for code that blocks (`time.sleep`)."""
        self._time += max(0.0, seconds)

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the run began."""
        return self._time - _BEGIN

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> events.Handle:
        self._check_open()
        handle = events.Handle(callback, args, self, context)
        task = getattr(callback, "__self__", None)
        self._ready.append((handle, task if type(task) is SimulatedTask else None, self.steps))
        return handle

    call_soon_threadsafe: Any = call_soon

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> events.TimerHandle:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> events.TimerHandle:
        self._check_open()
        timer = events.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self.numbers), timer))
        return timer

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """A cancelled timer is dropped when its time comes."""

    # -- tasks and futures

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> asyncio.Task[Any]:
        self._check_open()
        options.pop("eager_start", None)  # each start is a step of its own
        task = SimulatedTask(
            coro,
            loop=self,
            name=f"Task-{next(self._named)}" if name is None else name,
            context=context,
            **options,
        )
        self._tasks[task.number] = task
        return task

    def set_task_factory(self, factory: Callable[..., Any] | None) -> None:
        if factory is not None:
            raise NotSimulated("loop.set_task_factory()")

    def get_task_factory(self) -> None:
        return None

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run the function in a task: it blocks nobody, and others run before and after it."""
        name = getattr(func, "__qualname__", type(func).__name__)
        return self.create_task(self.executed(func, args), name=f"executor: {name}")

    @staticmethod
    async def executed(func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call a function that code wanted to run in a thread."""
        await asyncio.sleep(0)
        return func(*args)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    def set_default_executor(self, executor: Any) -> None:
        """Calls run in tasks, whatever the executor is."""

    # -- running

    def run_until_complete(self, future: Any) -> Any:
        """Run until a task has ended.

        Raises:
            Deadlock: It waits for something that cannot happen any more.
            EndlessRun: It takes more steps than are allowed.
        """
        ended = asyncio.ensure_future(future, loop=self)
        self._run(ended.done)
        return ended.result()

    def run_forever(self) -> None:
        self._stopping = False
        self._run(lambda: self._stopping)

    def _run(self, done: Callable[[], bool]) -> None:
        self._check_open()
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._generators.add, self._finalize)
        events._set_running_loop(self)
        self._running = True
        try:
            while not done():
                self._step()
        finally:
            self._running = False
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _step(self) -> None:
        self.steps += 1
        ready, timers = self._ready, self._timers
        self._time += self.decisions.step_seconds
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not (ready or timers):
            raise Deadlock(self._waiting())
        if timers and (not ready or self.steps - self._timed > _STANDING):
            self._time = max(self._time, timers[0][0])
        while timers and timers[0][0] <= self._time:
            timer = heapq.heappop(timers)[2]
            self._timed = self.steps
            if not timer.cancelled():
                ready.append((timer, None, self.steps))
        if self.steps > self._limit:
            raise self._endless()
        if not ready:
            return
        handle, task = self._next()
        if handle.cancelled():
            return
        if task is not None:
            self._ran[task.number] += 1
            self.trace = hash((self.trace, task.number))
        handle._run()
        if task is not None and task.done():
            self._ended(task)

    def _next(self) -> tuple[events.Handle, SimulatedTask | None]:
        """Take the next callback, or one of the tasks that are ready before it."""
        ready = self._ready
        numbers: list[int] = []
        for _, task, _ in ready:
            if task is None:
                numbers.append(0)
                break  # it keeps its position before all that became ready later
            numbers.append(task.number)
        at = 0
        if len(numbers) > 1 and not self._cleaning:
            at = self.decisions.pick(numbers, self.steps - ready[0][2])
            if at and self.differences is not None:
                self.differences.append(self._difference(at))
        handle, task, _ = ready.pop(at)
        return handle, task

    def _difference(self, at: int) -> str:
        (_, first, _), (handle, task, _) = self._ready[0], self._ready[at]
        called: Any = getattr(handle, "_callback", None)
        name = getattr(called, "__qualname__", type(called).__name__)
        which = f"the callback {name}" if task is None else position(task)
        assert first is not None
        return f"step {self.steps}: {which} runs before {position(first)}"

    def _ended(self, task: SimulatedTask) -> None:
        # One that failed is kept until the end: somebody may still ask for its error.
        if task.cancelled() or not getattr(task, "_log_traceback", False):
            self._tasks.pop(task.number, None)

    # -- what is left, and what went wrong

    def living(self) -> list[SimulatedTask]:
        """The tasks that have not ended, in the order in which they began."""
        return [task for task in self._tasks.values() if not task.done()]

    def unseen(self) -> list[BaseException]:
        """The errors of tasks that have failed while nobody waited for them."""
        errors = []
        for task in self._tasks.values():
            if task.done() and not task.cancelled() and getattr(task, "_log_traceback", False):
                error = task.exception()
                assert error is not None
                error.add_note(f"It was raised in the task {name_of(task)!r}; nobody awaits it.")
                errors.append(error)
        return errors

    def describe(self, tasks: list[SimulatedTask]) -> list[str]:
        """Describe where tasks wait."""
        lines = [describe(task) for task in tasks[:_SHOWN]]
        return [*lines, f"  and {len(tasks) - _SHOWN} more"] if len(tasks) > _SHOWN else lines

    def _waiting(self) -> list[str]:
        return self.describe(self.living())

    def _endless(self) -> EndlessRun:
        often = []
        for number, count in self._ran.most_common(3):
            task = self._tasks.get(number)
            if task is not None:
                often.append(f"  ran {count} times:{describe(task)[1:]}")
        return EndlessRun(
            f"the scenario did not end within {self._limit:,} steps, in which "
            f"{self.elapsed:g} virtual seconds passed",
            often,
        )

    def settle(self, steps: int) -> None:
        """Let tasks end that are about to, in no time."""
        end = self.steps + steps
        self._run(lambda: not (self._ready and self.living()) or self.steps >= end)

    def dispose(self) -> None:
        """End what still runs, after a failure: cancel it, and close what refuses to end."""
        self._cleaning, self.differences = True, None
        self._limit = self.steps + _CLEANING
        self._timers.clear()
        for task in self.living():
            task.cancel()
        try:
            self._run(lambda: not self.living())
        except BaseException:  # the failure is known: what follows from it is not
            pass
        for task in self.living():
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            try:
                task.get_coro().close()
            except BaseException:
                pass
        self.unseen()

    def close(self) -> None:
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.failures.append(error or RuntimeError(context.get("message")))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._handler is None:
            self.default_exception_handler(context)
        else:
            self._handler(self, context)

    def set_exception_handler(self, handler: Callable[..., object] | None) -> None:
        self._handler = handler

    def get_exception_handler(self) -> Callable[..., object] | None:
        return self._handler

    def hash_of(self, thing: Any) -> int:
        """Number an object when it is first asked for, as its hash."""
        known = self._hashes.get(id(thing))
        if known is None or known[0]() is not thing:
            known = self._hashes[id(thing)] = weakref.ref(thing), next(self.numbers)
        return known[1]

    # -- the rest of a loop

    def stop(self) -> None:
        self._stopping = True

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """A simulation looks closer than the debug mode does."""

    async def shutdown_asyncgens(self) -> None:
        for generator in list(self._generators):
            await generator.aclose()

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generators.discard(generator)
        if not self._closed:
            self.create_task(_close(generator), name="closing a generator")

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("Event loop is closed")


async def _close(generator: AsyncGenerator[Any, Any]) -> None:
    await generator.aclose()

"""Time limits for handlers, without a timer for each call.

On asyncio a handler is watched from its first suspension on, by the one timer that its loop has for
all handlers of the same limit; on trio it gets a timer before it begins. No other file knows the
difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import time
import types
import weakref
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final

import anyio

__all__ = [
    "CLOSING_GRACE",
    "Expired",
    "Suspended",
    "driven",
    "end_of_this_task",
    "is_cancellation",
    "limited",
    "must_pass",
    "on_asyncio",
    "resume_limited",
    "stray_cancellation",
    "suspended",
    "task_id",
]

on_asyncio: Final = asyncio._get_running_loop
"""Returns the running asyncio loop or `None`: 20 ns, 200 on Python 3.11, which asks the system."""

CLOSING_GRACE: Final = 1.0
"""Seconds that a cancelled coroutine may keep swallowing its cancellation before it is closed."""


class Expired(Exception):
    """The limit was reached and the coroutine was cancelled."""


class _Lingering(Exception):
    """The limit was reached, and the coroutine has suspended once more."""


class _Grace:
    """Closes a coroutine that keeps swallowing its cancellation.

    Cancellations by scopes that it has entered itself, and has left, do not count.

    Args:
        seconds: How long after the first cancellation the next one closes it.
    """

    __slots__ = ("_over", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over: float | None = None

    def closes(self) -> bool:
        """Tell, at a cancellation, whether it closes the coroutine."""
        now = time.monotonic()
        if self._over is None:
            self._over = now + self._seconds
        return now >= self._over

    def suspended(self, yielded: Any) -> None:
        """Take note that the coroutine has suspended again after a cancellation."""
        if not _is_cancelled():
            # The cancellation came from a scope of its own and has been dealt with: the time
            # starts again at the next one. Held by
            # test_time_limits_of_its_own_end_no_driven_coroutine.
            self._over = None


class _Watch:
    """A call that must end in time.

    Args:
        queue: The calls of the same loop and limit.
        task: The task that it runs in.
        deadline: When it must have ended, in the loop's time.

    Attributes:
        task: As given.
        deadline: As given.
        late: Whether it did not end in time: the task has been cancelled.
    """

    __slots__ = ("_cancelling", "_queue", "deadline", "late", "task")

    def __init__(self, queue: _Queue, task: asyncio.Task[Any], deadline: float) -> None:
        self._queue = queue
        self._cancelling = task.cancelling()
        self.task = task
        self.deadline = deadline
        self.late = False

    def closes(self) -> bool:
        return False

    def suspended(self, yielded: Any) -> None:
        """Take note that the call has suspended again after a cancellation."""
        if self.late:
            raise _Lingering(yielded)

    def end(self) -> bool:
        """Let the call take as long as it likes from now on.

        Returns:
            Whether it was late and nothing else has cancelled its task meanwhile.
        """
        if self.late:
            return self.task.uncancel() <= self._cancelling
        queue = self._queue
        del queue.waiting[self]
        if not queue.waiting and queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        return False


class _Queue:
    """The calls of one loop that have the same limit: they expire in the order in which they came.

    So one timer is enough for all. While calls run it stays when one ends: it rings at most once in
    the time of the limit.

    Args:
        loop: The loop, not kept: that would keep it alive through the table of its queues.
        seconds: The limit.

    Attributes:
        waiting: The calls that run, the oldest first. A dict, since most end before those that
            came before them.
        timer: Rings when the oldest call must have ended, or before.
    """

    __slots__ = ("_context", "_loop", "_seconds", "timer", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = weakref.ref(loop)
        self._seconds = seconds
        # The timer outlives the call that sets it, and must not keep its variables.
        self._context = contextvars.Context()
        self.waiting: dict[_Watch, None] = {}
        self.timer: asyncio.TimerHandle | None = None

    def watch(self, task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> _Watch:
        """Cancel a task once the limit is over, unless the watch ends before."""
        watch = _Watch(self, task, loop.time() + self._seconds)
        self.waiting[watch] = None
        if self.timer is None:
            self.timer = loop.call_at(watch.deadline, self._ring, context=self._context)
        return watch

    def _ring(self) -> None:
        self.timer = None
        loop = self._loop()
        assert loop is not None  # it runs this
        now = loop.time()
        for watch in list(self.waiting):
            if watch.deadline > now:
                self.timer = loop.call_at(watch.deadline, self._ring, context=self._context)
                return
            del self.waiting[watch]
            watch.late = True
            watch.task.cancel()


_Queues = dict[float, _Queue]
_queues: Final = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Queues]()


def _watch(task: asyncio.Task[Any], seconds: float) -> _Watch:
    """Cancel a task in so many seconds, unless the watch ends before."""
    loop = task.get_loop()
    queues = _queues.get(loop)
    if queues is None:
        queues = _queues[loop] = {}
    queue = queues.get(seconds)
    if queue is None:
        queue = queues[seconds] = _Queue(loop, seconds)
    return queue.watch(task, loop)


class Suspended(BaseException):
    """A coroutine has suspended, and yielded the argument."""


def suspended(yielded: Any) -> bool:
    """Stop at the first suspension: `yield from filter(suspended, coroutine.__await__())`.

    That is a coroutine's first step taken by hand, without the exception that `send` raises if the
    coroutine ends in it, as most do: a C iterator hands its result on as it is. It costs 0.1-0.6 µs
    less, the more the newer Python is.

    Raises:
        Suspended: Always.
    """
    raise Suspended(yielded)


@types.coroutine
def resume(
    coroutine: Coroutine[Any, Any, Any], yielded: Any, guard: _Grace | _Watch | None = None
) -> Generator[Any, Any, Any]:
    """Run a coroutine on that was started by hand and has yielded once.

    Args:
        coroutine: The coroutine. Readers of await chains find it under this name.
        yielded: What it yielded.
        guard: Consulted at each cancellation.
    """
    while True:
        error: BaseException | None = None
        sent: Any = None
        try:
            sent = yield yielded
            if sent is not None:
                error = getattr(sent, "error", None)  # trio sends outcomes that raise further in
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as thrown:
            error = thrown
        try:
            # Asking for the class costs more than a step, so not without an error.
            cancelling = (
                error is not None
                and guard is not None
                and isinstance(error, anyio.get_cancelled_exc_class())
            )
            if cancelling and guard is not None and guard.closes():
                with contextlib.suppress(RuntimeError):  # it swallows GeneratorExit as well
                    coroutine.close()
                assert error is not None
                raise error
            if error is None or sent is not None:
                yielded = coroutine.send(sent)
            else:
                yielded = coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            error = sent = None  # an exception held here would hold this frame: a cycle a call
        if cancelling and guard is not None:
            guard.suspended(yielded)


def _is_cancelled() -> bool:
    """Tell whether the task that is running, or a scope that it is in, is being cancelled."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task() if on_asyncio() is not None else None
    return task is not None and task.cancelling() > 0


async def driven(coroutine: Coroutine[Any, Any, Any], grace: float = CLOSING_GRACE) -> Any:
    """Run a coroutine to its end, and close it if it keeps refusing to be cancelled.

    Args:
        coroutine: The coroutine.
        grace: Seconds that it may keep swallowing cancellation. A cancellation after that closes
            it: `GeneratorExit` is raised where it is suspended.

    Returns:
        What it returns.
    """
    try:
        yielded = coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    return await resume(coroutine, yielded, _Grace(grace))


async def resume_limited(
    coroutine: Coroutine[Any, Any, Any], yielded: Any, seconds: float, late: bool = True
) -> Any:
    """Run a started coroutine on, on asyncio, for at most so many seconds.

    Once cancelled it has `CLOSING_GRACE` seconds to end; then it is closed.

    Args:
        coroutine: The coroutine.
        yielded: What it yielded first.
        seconds: The limit.
        late: Whether what it returns counts if it returns in spite of its cancellation.

    Raises:
        Expired: It took longer; it has been cancelled and has ended.
    """
    task = asyncio.current_task()
    if task is None:  # trio as a guest on asyncio: no way to limit a started call
        return await resume(coroutine, yielded)
    watch = _watch(task, seconds)
    try:
        answer = await resume(coroutine, yielded, watch)
    except _Lingering as lingering:
        # It cleans up, or swallows its cancellation. The watch that expired has ended, since it
        # cancels once only; a timer bounds what follows. Held by
        # test_a_handler_may_clean_up_after_its_limit and
        # test_a_handler_that_swallows_its_limit_is_closed_in_the_end.
        (yielded,) = lingering.args
        watch.end()
    except BaseException as error:
        if watch.end() and isinstance(error, asyncio.CancelledError):
            raise Expired from error
        raise
    else:
        watch.end()
        if late or not watch.late:
            return answer
        raise Expired
    timer = asyncio.timeout(CLOSING_GRACE)
    try:
        async with timer:
            answer = await resume(coroutine, yielded, _Grace(0))
        if late:
            return answer
        raise Expired
    except (TimeoutError, asyncio.CancelledError) as error:
        if timer.expired() or not must_pass(error):
            raise Expired from error
        raise


async def limited(coroutine: Coroutine[Any, Any, Any], seconds: float, late: bool = True) -> Any:
    """Run a coroutine to its end, for at most so many seconds, on any backend.

    The arguments are those of `resume_limited`.

    Raises:
        Expired: It took longer; it has been cancelled and has ended.
    """
    if on_asyncio() is not None:
        # The first step by hand: most handlers never suspend, and one that does is watched from
        # then on (0.2-0.4 µs, against 5 µs for `asyncio.timeout` around each call). What runs
        # before the first suspension could not have been interrupted anyway. Held by
        # test_handlers_within_their_limit and test_asyncio_timeouts_nest.
        try:
            yielded = coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        return await resume_limited(coroutine, yielded, seconds, late)
    # On trio a scope opened in the middle of a call would corrupt trio's stack of scopes. Held by
    # test_a_scope_around_the_emission_wins.
    answer = None
    with anyio.move_on_after(seconds) as scope:
        answer = await driven(coroutine)
    if scope.cancelled_caught or (scope.cancel_called and not late):
        raise Expired
    return answer


def must_pass(error: BaseException) -> bool:
    """Tell whether an error must pass, so that catching it here would be wrong.

    That is `KeyboardInterrupt`, and the cancellation of the task that is running. Code that awaited
    another task that was cancelled raises the same type on asyncio, and has failed.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(must_pass(inner) for inner in error.exceptions)
    return isinstance(error, KeyboardInterrupt) or is_cancellation(error)


def is_cancellation(error: BaseException) -> bool:
    """Tell whether an error is the cancellation of the task that is running.

    For tasks of the kernel: a `KeyboardInterrupt` that a plugin raises there is its failure, and
    must not end the tasks of all others.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(is_cancellation(inner) for inner in error.exceptions)
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    if on_asyncio() is None:
        return True
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def end_of_this_task() -> Callable[[], bool]:
    """Return what tells whether the task that runs now has ended; on trio, always `False`."""
    task = asyncio.current_task() if on_asyncio() is not None else None
    return (lambda: False) if task is None else task.done


def task_id() -> int:
    """Return the id of the task that runs, as `anyio.get_current_task().id` does."""
    task = asyncio.current_task() if on_asyncio() is not None else None
    return anyio.get_current_task().id if task is None else id(task)


def stray_cancellation() -> bool:
    """Undo `task.cancel()` by code that does not own the task that runs.

    Returns:
        Whether that is all that has cancelled it: no scope that it is in is cancelled.
    """
    task = asyncio.current_task() if on_asyncio() is not None else None
    if task is None or anyio.current_effective_deadline() == -math.inf:
        return False
    while task.uncancel():
        pass
    return True

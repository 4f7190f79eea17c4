"""Time limits for handlers without a timer a call.

Most handlers never suspend. On asyncio the first step of a coroutine is therefore taken by hand,
and only one that did suspend gets a timer (0.2-0.4 µs against 5 µs for `asyncio.timeout` around
each call). What runs before the first suspension could not have been interrupted anyway.
On trio a scope may not be opened in the middle of a call, it would corrupt trio's stack of
scopes; there the timer is opened first. This file is the only one that knows the difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final

import anyio

__all__ = [
    "GRACE",
    "Expired",
    "driven",
    "limited",
    "must_pass",
    "on_asyncio",
    "resume_limited",
]

on_asyncio: Final = asyncio._get_running_loop
"""Returns the running asyncio loop or `None`: 20 ns, 200 on Python 3.11, which asks the system."""


GRACE: Final = 1.0
"""Seconds that code may go on swallowing cancellation before it is closed."""


class Expired(Exception):
    """The limit was reached and the coroutine was cancelled."""


class _Lingering(Exception):
    """The limit was reached, and the coroutine has suspended once more."""


@types.coroutine
def resume(
    coroutine: Coroutine[Any, Any, Any],
    yielded: Any,
    grace: float | None = None,
    expired: Callable[[], bool] | None = None,
) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that was started by hand and has yielded once.

    Args:
        coroutine: The coroutine.
        yielded: What it yielded.
        grace: Seconds after its first cancellation from which the next one closes it, so that
            code which swallows cancellation ends all the same; `None` for never. Cancellations of
            scopes that it has entered itself, and has left, do not count.
        expired: Tells, after a cancellation, whether it was that of a limit; if the coroutine
            then suspends once more, `_Lingering` is raised with what it yielded.
    """
    cut: float | None = None
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
            cancelling = error is not None and isinstance(error, anyio.get_cancelled_exc_class())
            if error is not None and cancelling and grace is not None:
                now = time.monotonic()
                cut = now + grace if cut is None else cut
                if now >= cut:
                    with contextlib.suppress(RuntimeError):  # it swallows GeneratorExit as well
                        coroutine.close()
                    raise error
            if error is None or sent is not None:
                yielded = coroutine.send(sent)
            else:
                yielded = coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            error = sent = None  # an exception held here would hold this frame: a cycle a call
        if cancelling and cut is not None and not _is_cancelled():
            cut = None  # that was a scope of its own, whose time was over
        if cancelling and expired is not None and expired():
            raise _Lingering(yielded)


def _is_cancelled() -> bool:
    """Tell whether the task that is running, or a scope that it is in, is being cancelled."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task() if on_asyncio() is not None else None
    return task is not None and task.cancelling() > 0


async def driven(coroutine: Coroutine[Any, Any, Any], grace: float = GRACE) -> Any:
    """Run a coroutine to its end; it cannot refuse to be cancelled for longer than `grace`."""
    try:
        yielded = coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    return await resume(coroutine, yielded, grace)


async def resume_limited(coroutine: Coroutine[Any, Any, Any], yielded: Any, seconds: float) -> Any:
    """Go on with a started coroutine, on asyncio, for so many seconds at most.

    Once cancelled it has `GRACE` seconds to end; then it is closed.

    Raises:
        Expired: It took longer; it has been cancelled and has ended.
    """
    if asyncio.current_task() is None:  # trio as a guest on asyncio: no way to limit a started call
        return await resume(coroutine, yielded)
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            return await resume(coroutine, yielded, None, timer.expired)
    except _Lingering as lingering:
        (yielded,) = lingering.args
    except TimeoutError as error:
        if timer.expired():
            raise Expired from error
        raise
    timer = asyncio.timeout(GRACE)
    try:
        async with timer:
            return await resume(coroutine, yielded, 0)
    except (TimeoutError, asyncio.CancelledError) as error:
        if timer.expired() or not must_pass(error):
            raise Expired from error
        raise


async def limited(coroutine: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """Run a coroutine to its end, for so many seconds at most, on any backend.

    Raises:
        Expired: It took longer; it has been cancelled and has ended.
    """
    if on_asyncio() is not None:
        try:
            yielded = coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        return await resume_limited(coroutine, yielded, seconds)
    with anyio.move_on_after(seconds) as scope:
        return await driven(coroutine)
    if scope.cancelled_caught:
        raise Expired
    raise AssertionError("unreachable: a scope that was left without a result was cancelled")


def must_pass(error: BaseException) -> bool:
    """Tell whether what a plugin's code raised must not be stopped.

    That is `KeyboardInterrupt`, and the cancellation of the task that is running; code that
    merely awaited somebody's cancelled task raises the same type on asyncio, and has failed.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(must_pass(inner) for inner in error.exceptions)
    if isinstance(error, KeyboardInterrupt):
        return True
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    if on_asyncio() is None:
        return True
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0

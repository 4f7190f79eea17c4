"""Calling a function of somebody else, `def` or `async def`, in the current task.

Promise: a cancellation that is raised here is that of the current task. On asyncio, a function that
awaited a task which somebody had cancelled raises the same type; here that is a failure of the
function (test_somebody_elses_cancelled_task_is_a_failure).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

from veko import HookError

__all__ = ["call"]


async def call(fn: Callable[..., object], /, *args: object, **kwargs: object) -> object:
    """Call a function and await it if it is `async def`.

    Raises:
        HookError: The function awaited something that was cancelled.
        BaseException: Whatever the function raises.
    """
    try:
        result = fn(*args, **kwargs)
        return await result if inspect.iscoroutine(result) else result
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        name = getattr(fn, "__qualname__", repr(fn))
        raise HookError(f"{name} awaited something that was cancelled") from error

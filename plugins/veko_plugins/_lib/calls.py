"""Calling somebody's function, `def` or `async def`, from the task of the host.

Promise: the only cancellation that comes out is that of the task that is running. A function that
merely awaited somebody's cancelled task raises the same type on asyncio; here it has failed.
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
        HookError: It awaited what somebody else had cancelled.
        BaseException: What it raised.
    """
    try:
        result = fn(*args, **kwargs)
        return await result if inspect.iscoroutine(result) else result
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        name = getattr(fn, "__qualname__", repr(fn))
        raise HookError(f"{name} awaited what had been cancelled") from error

"""Leaving a kernel: unloading everything, however often it is cut off."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from .._bus.limits import is_cancellation, stray_cancellation
from .runtime import Runtime

__all__ = ["unload_all"]

_log: Final = logging.getLogger("veko")


async def unload_all(runtime: Runtime, unload: Callable[[str], Awaitable[Any]]) -> None:
    """Unload all plugins, the last to arrive first, and emit what was posted.

    Args:
        runtime: The kernel's runtime.
        unload: Unloads one plugin, whatever hooks and dependents say.
    """
    cut = True
    while cut:
        cut = False
        for record in reversed(runtime.records()):
            if not record.loaded:
                continue
            try:
                await unload(record.name)
            except BaseException as failure:  # the others are to be unloaded all the same
                if is_cancellation(failure):
                    if not stray_cancellation():
                        raise
                    cut = True  # once more: it may still be under way
                    continue
                _log.exception("unloading %s failed", record.name, exc_info=failure)
    for record in runtime.records():
        for retirement in tuple(record.retiring):
            await retirement.done.wait()
    await runtime.emit_posted()

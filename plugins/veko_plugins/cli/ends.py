"""Keeps plugins from ending what is not theirs: the event loop, and the task of a command.

`SystemExit` and `KeyboardInterrupt` in a task or callback leave the event loop itself, which then
runs on with whatever is left; `loop.stop()` leaves it, too; `task.cancel()` ends tasks of others.
A command is what its coroutine does, so only that ends it: otherwise the loop is entered again, and
the plugin's file is named.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final

from veko.extend import location_of

from .lines import lines

__all__ = ["Owned", "drive"]

_OURS: Final = ("asyncio", "anyio", "uvloop", "uvicorn", "veko", "veko_plugins", "veko_adapters")


class Owned(asyncio.Task[int]):
    """The task of a command's coroutine.

    Attributes:
        cancelled_at: The file and line that cancelled it, if that is not code of the command.
        on_stray: Called when that happens.
    """

    cancelled_at: str | None = None
    on_stray: Callable[[], object] | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it, and take note of the caller."""
        frame: FrameType | None = sys._getframe(1)
        name = str(frame.f_globals.get("__name__", "")) if frame is not None else ""
        if frame is not None and name.partition(".")[0] not in _OURS and not self.done():
            self.cancelled_at = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            if self.on_stray is not None:
                self.on_stray()
        return super().cancel(msg)


def drive(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, int],
    suspects: Callable[[], str],
) -> int:
    """Run a loop until a coroutine has ended, however often something else leaves the loop.

    Args:
        loop: The loop.
        coroutine: The coroutine.
        suspects: Names the plugins, for a failure that does not show where it comes from.

    Returns:
        What the coroutine returns.
    """
    main = loop.create_task(coroutine)
    stop = loop.stop

    def refuse_to_stop() -> None:
        if not main.done():
            raise RuntimeError("the event loop is not a plugin's to stop: it serves all of them")
        stop()

    loop.stop = refuse_to_stop  # type: ignore[method-assign]
    while True:
        try:
            return loop.run_until_complete(main)
        except BaseException as error:
            if main.done():
                raise
            found = location_of(error)
            where = f"at {found.path}:{found.line}" if found else f"by one of {suspects()}"
            lines.say(
                f"veko: {type(error).__name__} was raised {where}, outside of any call that could "
                "report it; the application continues. A plugin may fail, but not end it.",
                "error",
                error=error,
            )

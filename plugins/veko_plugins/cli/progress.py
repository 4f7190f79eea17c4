"""What people see while a command takes longer than a second.

At a terminal a line shows what is done and for how long, and vanishes at the end. A thread writes
it: a plugin that loads may block the loop. Elsewhere only the log says which plugin loads slowly;
see `manager.slow_steps`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from veko_plugins.manager import PluginManager

__all__ = ["FIRST", "SAID", "loading", "progress"]

FIRST: Final = 1.0
"""Seconds after which it is first said what takes long."""
SAID: Final = {"veko.loading": "warning"}
"""Levels of loggers with which the log says which plugin loads slowly."""
_EACH: Final = 0.2


@contextlib.contextmanager
def progress(what: Callable[[], str]) -> Iterator[None]:
    """Show what is done at a terminal, if it takes longer than a second.

    Args:
        what: Returns what is done now, such as `loading shop`; called on another thread.
    """
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=[what, ended], name="veko-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def loading(manager: PluginManager) -> contextlib.AbstractContextManager[None]:
    """Show which plugins a manager loads, if its start takes longer than a second."""
    from veko import State

    def what() -> str:
        records = manager.kernel.records()
        names = [one.name for one in records if one.state is State.LOADING and not one.core]
        return f"loading {', '.join(names) or 'plugins'}"

    return progress(what)


def _show(what: Callable[[], str], ended: threading.Event) -> None:
    begin = time.monotonic()
    if ended.wait(FIRST):
        return
    from rich.console import Console

    with Console(stderr=True).status(what()) as status:
        while not ended.wait(_EACH):
            status.update(f"{what()} ({time.monotonic() - begin:.0f} s)")

"""The garbage collector, made to run seldom while many plugins load.

Nearly all that a load makes stays, so the collector looks at it again and again in vain. It is not
switched off: what a load leaves behind is collected in the end, however long it takes.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["SELDOM", "seldom_collected"]

SELDOM: Final = 100_000
"""How many more objects must be there before the collector runs: some 20 MiB at most."""


class _Collector:
    """The collector of the process, which several managers may be loading plugins in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads = 0
        self._before = gc.get_threshold()

    @contextmanager
    def seldom(self) -> Iterator[None]:
        """Let it run once in `SELDOM` new objects; may be entered more than once.

        At the end all is as it was, unless somebody has set the threshold meanwhile.
        """
        self._begin()
        try:
            yield
        finally:
            self._end()

    def _begin(self) -> None:
        with self._lock:
            self._loads += 1
            if self._loads == 1:
                self._before = gc.get_threshold()
                if 0 < self._before[0] < SELDOM:  # 0: it is switched off
                    gc.set_threshold(SELDOM, *self._before[1:])

    def _end(self) -> None:
        with self._lock:
            self._loads -= 1
            if self._loads == 0 and gc.get_threshold() == (SELDOM, *self._before[1:]):
                gc.set_threshold(*self._before)


seldom_collected: Final = _Collector().seldom

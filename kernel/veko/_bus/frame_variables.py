"""The local variables of a frame, read so that the frame keeps none of them."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, Final

__all__ = ["variables"]

_KEEPS: Final = sys.version_info < (3, 13)


def variables(frame: FrameType) -> dict[str, Any]:
    """Return a copy of the local variables of a running or suspended function.

    Args:
        frame: The frame of a function, not of a module or a class.
    """
    found = frame.f_locals
    copy = dict(found)
    if _KEEPS:
        # Before 3.13 the frame keeps this dictionary, so whatever keeps the frame (a traceback in
        # a log record, and on 3.12 any frame that it called) would keep an emission's token after
        # its end, and draining the plan would wait for nothing. Held by
        # test_a_frame_that_was_read_holds_nothing_up.
        found.clear()
    return copy

"""Local variables of running functions, read so that their frames keep nothing because of it.

Up to Python 3.12 a frame keeps the dict that `f_locals` returns, and with it whatever the function
lets go of later. If a traceback keeps the frame, that dict would hold an emission's token long
after its end, and an unload would wait for it
(`test_an_emission_whose_error_is_kept_holds_nothing_up`).
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

__all__ = ["local_of"]


def local_of(frame: FrameType, name: str) -> Any:
    """Return a local variable of a frame; `None` if it has none of that name.

    Args:
        frame: A frame of a function of Veko's own, which never calls `locals()`.
        name: The variable.
    """
    names = frame.f_locals
    found = names.get(name)
    # A debugger writes the dict back into the frame it traces, so there it stays as it is.
    if sys.version_info < (3, 13) and frame.f_trace is None:
        names.clear()
    return found

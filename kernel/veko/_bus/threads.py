"""Which thread may register: the one whose event loop runs what is registered."""

from __future__ import annotations

import threading

from ..errors import StateError

__all__ = ["check_thread", "this_thread"]

this_thread = threading.get_ident
"""Returns the id of the thread that is running."""


def check_thread(home: int | None) -> None:
    """Raise in any other thread than one.

    Args:
        home: The id of that thread; `None` for any thread.

    Raises:
        StateError: This is another thread.
    """
    if home is not None and home != this_thread():
        raise StateError(
            f"this was called in the thread {threading.current_thread().name!r}, but the event "
            "loop runs in another one",
            remedy="Call it from there with anyio.from_thread.run_sync(function) (or "
            "anyio.from_thread.run for an async one), in a thread that anyio.to_thread started.",
        )

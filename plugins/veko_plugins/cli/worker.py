"""One of several processes that serve, as `supervisor` starts it: `python -m … SETTINGS ALIVE`.

It ends when its supervisor does, however that ended: the pipe ALIVE closes then, and a thread that
waits for that asks this process to stop, in its grace, even if a plugin blocks the loop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from .serve import serve_here
from .supervisor import read_settings

__all__: list[str] = []


def _end_with(descriptor: int) -> None:
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _main(settings: str, alive: str) -> int:
    asked = read_settings(settings)
    place = asked.place
    assert place is not None
    for descriptor in (int(alive), place.ready, place.listener):
        os.set_inheritable(descriptor, False)  # what plugins start shall not hold them
    threading.Thread(target=_end_with, args=[int(alive)], daemon=True).start()
    return serve_here(asked)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))

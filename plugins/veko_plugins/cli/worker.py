"""One of several processes that serve; `supervisor` starts it as `python -m … SETTINGS ALIVE`.

It stops when its supervisor exits for any reason: the pipe ALIVE is closed then, and a thread that
waits for that sends this process SIGTERM, which works even if a plugin blocks the loop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from .serve import serve_here
from .supervisor import read_settings

__all__: list[str] = []


def _stop_with(descriptor: int) -> None:
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _main(settings: str, alive: str) -> int:
    given = read_settings(settings)
    worker = given.worker
    assert worker is not None
    for descriptor in (int(alive), worker.ready, worker.listener):
        os.set_inheritable(descriptor, False)  # processes that plugins start must not hold them
    threading.Thread(target=_stop_with, args=[int(alive)], daemon=True).start()
    return serve_here(given)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))

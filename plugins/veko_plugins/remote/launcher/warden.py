"""A process between the launcher and a worker that may start others: none of them outlives it.

It adopts the orphans of its worker, so it knows every process that came from it, whatever session
or group they moved to. When the worker ends, or on SIGTERM, it kills what is left and ends as the
worker did. It costs a fork (1 ms) and about 1 MiB: workers that cannot start processes have none.
"""

import os
import resource
import signal
from typing import NoReturn

from . import native
from .messages import Start
from .processes import kill_below, reap


def is_needed(start: Start) -> bool:
    """Whether a worker can start processes."""
    return start.confinement is None or start.confinement.spawn


def guard(launcher: int) -> None:
    """Fork; return in the worker, stay as its warden in the other.

    Args:
        launcher: The pid of the launcher's process, the parent of this one.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, signal.SIGTERM))
    native.end_with_parent(launcher, signal.SIGTERM)
    native.adopt_orphans()
    warden = os.getpid()
    worker = os.fork()
    if worker:
        os.closerange(0, os.sysconf("SC_OPEN_MAX"))
        _stay(worker)
    native.end_with_parent(warden, signal.SIGKILL)


def _stay(worker: int) -> NoReturn:
    status = None
    while status is None:
        if signal.sigwait((signal.SIGCHLD, signal.SIGTERM)) == signal.SIGTERM:
            break
        status = reap().get(worker)
    ended = kill_below(os.getpid())
    _end_as(ended.get(worker, -signal.SIGKILL) if status is None else status)


def _end_as(status: int) -> NoReturn:
    """End this process with an exit status, or by a signal if it is negative."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), -status)
    os._exit(max(status, 0))

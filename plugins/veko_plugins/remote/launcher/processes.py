"""Processes below another one: which they are, what they use, and how all of them are killed.

A pid is signalled only by its parent or by an ancestor that adopts orphans, so it cannot have been
reaped and given to another process in between.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")
_TURN_SECONDS = 0.001
_KILL_SECONDS = 5.0


def children(pid: int) -> list[int]:
    """Pids of the children of a process; none on systems without `/proc`."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in _PROC.joinpath(str(pid), "task").iterdir():
            with contextlib.suppress(OSError):
                found.extend(map(int, task.joinpath("children").read_text("ascii").split()))
    return found


def descendants(pid: int) -> list[int]:
    """Pids of the processes below a process."""
    found: list[int] = []
    pending = [pid]
    while pending:
        below = children(pending.pop())
        found += below
        pending += below
    return found


def resident(pids: Iterable[int]) -> int:
    """Bytes of memory of these processes; pages that they share count for each of them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError):
            total += int(_PROC.joinpath(str(pid), "statm").read_text("ascii").split()[1]) * _PAGE
    return total


def kill_below(pid: int) -> dict[int, int]:
    """Kill every process below this one and reap those that become its children.

    The caller adopts orphans, and `pid` is its own. Processes are stopped before any is killed: one
    that is stopped cannot fork, so fewer are left to find with every turn, however fast they
    multiply (`test_a_fork_bomb_is_killed_as_a_whole`). After 5 s it gives up on what is left: a
    process of another user, or one that the kernel does not let go.

    Returns:
        Exit statuses by pid, signals as negative numbers.
    """
    ended: dict[int, int] = {}
    limit = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < limit:
        found: set[int] = set()
        while fresh := set(descendants(pid)) - found:
            _signal(fresh, signal.SIGSTOP)
            found |= fresh
        if not found:
            break
        _signal(found, signal.SIGKILL)
        ended |= reap()
        time.sleep(_TURN_SECONDS)
    return ended | reap()


def reap() -> dict[int, int]:
    """Reap the children that have ended.

    Returns:
        Exit statuses by pid, signals as negative numbers.
    """
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
            ended[reaped[0]] = os.waitstatus_to_exitcode(reaped[1])
    return ended


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)

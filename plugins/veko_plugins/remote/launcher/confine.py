"""Confining a process before the worker's code runs, and what a system cannot enforce of it."""

import contextlib
import os
import resource
import sys
from ctypes import byref, c_uint32
from pathlib import Path

import msgspec
from msgspec import Struct

from . import landlock, native, seccomp
from .confinement import Confinement

__all__ = ["System", "confine", "missing", "this_system"]

_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _CLEAR_ALL = 38, 24, 47, 4
_CAPABILITY_VERSION = 0x20080522
_CAPABILITIES = 64
_UNUSED_USERS = 61184, 4336
"""Users that no account has: systemd gives them out for a while (first, and how many)."""
_TRUNCATE_SINCE, _TCP_SINCE, _SIGNALS_SINCE = 3, 4, 6


class System(Struct, frozen=True, kw_only=True):
    """What this machine can enforce.

    Attributes:
        landlock: The version of Landlock; 0 is none.
        seccomp: Whether system calls can be filtered.
    """

    landlock: int
    seccomp: bool


def this_system() -> System:
    """Look at what this machine can enforce."""
    if sys.platform != "linux":
        return System(landlock=0, seccomp=False)
    return System(landlock=landlock.abi(), seccomp=seccomp.is_supported())


def missing(confinement: Confinement, system: System | None = None) -> list[str]:
    """Return what a machine cannot enforce of a confinement; empty if it can all of it.

    Args:
        confinement: What a worker may do.
        system: The machine; this one if left out.
    """
    here = this_system() if system is None else system
    found: list[str] = []
    if here.landlock < _TRUNCATE_SINCE:
        found.append("files (Landlock of Linux 6.2 or later)")
    if (confinement.connect, confinement.listen) != (None, None) and here.landlock < _TCP_SINCE:
        found.append("TCP connections (Landlock of Linux 6.7 or later)")
    if confinement.spawn and here.landlock < _SIGNALS_SINCE:
        found.append("signals of the processes that it starts (Landlock of Linux 6.12 or later)")
    if not here.seccomp:
        found.append("system calls (seccomp on x86_64 or aarch64)")
    return found


def confine(confinement: Confinement, folder: Path | None, *, executes: bool) -> None:
    """Confine this process, which has no other threads, and all that it will start.

    Args:
        confinement: What it may do.
        folder: Its private working folder, which it may write to.
        executes: Whether it is about to execute its program.

    Raises:
        OSError: The kernel refused a step; the process must end.
    """
    lacks = missing(confinement)
    if lacks:
        raise OSError(0, f"this system cannot enforce: {'; '.join(lacks)}")
    os.umask(0o077)  # modes cannot be changed later
    _limit(confinement)
    with contextlib.suppress(OSError):  # the kernel then ends a worker before it ends the host
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    if confinement.spawn:
        _limit_processes(confinement.processes)
    _drop_capabilities()
    native.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    own = confinement
    if folder is not None:
        own = msgspec.structs.replace(confinement, write=(*confinement.write, folder))
    landlock.restrict(own, version=landlock.abi())
    seccomp.restrict(own, executes=executes)


def _limit(confinement: Confinement) -> None:
    for name, most in (
        (resource.RLIMIT_NOFILE, confinement.files),
        (resource.RLIMIT_FSIZE, confinement.file_size),
        (resource.RLIMIT_CPU, confinement.cpu),
        (resource.RLIMIT_CORE, 0),  # a dump would put the worker's memory into a file
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        if most is not None:
            hard = resource.getrlimit(name)[1]
            value = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(name, (value, value))


def _limit_processes(most: int) -> None:
    """Limit the threads of this worker and of what it starts.

    The kernel counts by real user, and does not limit root. So root gives the worker a real user
    that no account has; its effective user, by which files are opened, stays.
    """
    if os.geteuid() == 0:
        first, count = _UNUSED_USERS
        os.setresuid(first + os.getpid() % count, 0, 0)
    else:
        most += _threads_of(os.getuid())
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (value, value))


def _threads_of(user: int) -> int:
    found = 0
    with os.scandir("/proc") as processes:
        for process in processes:
            with contextlib.suppress(OSError):
                if process.name.isdecimal() and process.stat().st_uid == user:
                    found += len(os.listdir(f"/proc/{process.name}/task"))  # noqa: PTH208
    return found


def _drop_capabilities() -> None:
    """Give up what root may do beyond others; without privileges there is nothing to give up."""
    with contextlib.suppress(OSError):
        native.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    for capability in range(_CAPABILITIES):
        with contextlib.suppress(OSError):  # not privileged, or the kernel knows no more of them
            native.prctl(_PR_CAPBSET_DROP, capability)
    header = (c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    none = (c_uint32 * 6)()
    native.capset(byref(header), byref(none))
    if os.geteuid() == 0 and _effective():
        raise OSError(0, "the capabilities of root could not be given up")


def _effective() -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0

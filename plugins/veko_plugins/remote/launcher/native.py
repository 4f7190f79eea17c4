"""The C library's functions that Python has no name for."""

import ctypes
import os
import sys

_LIBRARY = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def syscall(number: int, *arguments: object) -> int:
    """Make a system call.

    Raises:
        OSError: It failed.
    """
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_LIBRARY.syscall(ctypes.c_long(number), *wide))


def prctl(option: int, *arguments: object) -> int:
    """Change or read a property of this thread or process; see `prctl(2)`.

    Raises:
        OSError: It failed.
    """
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    wide += [ctypes.c_ulong(0)] * (4 - len(wide))  # the kernel refuses leftovers in registers
    return _checked(_LIBRARY.prctl(ctypes.c_int(option), *wide))


def capset(header: object, data: object) -> int:
    """Set this thread's capabilities; see `capset(2)`.

    Raises:
        OSError: It failed.
    """
    return _checked(_LIBRARY.capset(header, data))


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, where the system can do that."""
    if sys.platform == "linux":
        prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(parent: int, number: int) -> None:
    """Let the kernel send this process a signal when its parent has ended.

    Args:
        parent: Its pid; it may have ended before this call.
        number: The signal.
    """
    if sys.platform == "linux":
        prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)

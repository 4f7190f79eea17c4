"""The Unix sockets of a running application, in `.veko/control/`, for its user alone.

`<pid>.sock` is that of the management API, `<pid>.console` that of `veko debug`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from veko import StateError

from .private_files import private_folder

__all__ = ["address_of", "answers", "control_folder", "live_sockets", "made_folder", "peer_of"]

_FOLDER: Final = Path(".veko") / "control"
_LONGEST: Final = 100
"""Bytes of a path that fit into the address of a Unix socket on every system."""
_OTHERS: Final = 0o077


def control_folder(directory: Path) -> Path:
    """Return the folder of an application's control sockets."""
    return directory.absolute() / _FOLDER


def made_folder(directory: Path) -> Path:
    """Return the folder of the control sockets, which is made if it is missing.

    Raises:
        StateError: It is not this user's alone, and cannot be made so.
        OSError: It cannot be made.
    """
    folder = control_folder(directory)
    private_folder(folder)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise StateError(
            f"{folder} is not a folder of this user", remedy="Remove it: a new one is made."
        )
    if found.st_mode & _OTHERS:
        folder.chmod(0o700)
    return folder


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Yield the address of a socket's file, which may be too long for one.

    Raises:
        OSError: It is too long, and this system offers no other way.
    """
    text = str(path)
    if len(os.fsencode(text)) <= _LONGEST:
        yield text
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def live_sockets(directory: Path, suffix: str = ".sock") -> dict[int, Path]:
    """Return the sockets of processes that are alive, by process."""
    found: dict[int, Path] = {}
    try:
        paths = sorted(control_folder(directory).glob(f"*{suffix}"))
    except OSError:
        return found
    for path in paths:
        if path.stem.isdecimal() and _is_alive(int(path.stem)):
            found[int(path.stem)] = path
    return dict(sorted(found.items()))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return False  # another user has it now
    return True


def peer_of(connection: socket.socket) -> tuple[int, int] | None:
    """Return process and user of the other end; `None` where the system does not say."""
    option: int | None = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, option, 12)
    return int.from_bytes(raw[:4], sys.byteorder), int.from_bytes(raw[4:8], sys.byteorder)


def answers(path: Path) -> bool:
    """Return whether something listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, address_of(path) as address:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except BlockingIOError:
            return True  # it has more to answer than it takes
        except OSError:
            return False
    return True

"""Names what a plugin accesses: the permission, the value, and the line of its own code.

Python reports files, sockets and processes to an audit hook before it opens them. What the plugin's
`permissions` do not grant is refused here, with an error that says which one would, and the host
counts it. This is for the names only: code that avoids Python's own functions avoids the hook, and
is stopped by the kernel (Landlock, seccomp), which names nothing.

Cost: a dict lookup for each event that Python audits; 5 to 20 µs for a file that is opened.
"""

from __future__ import annotations

import errno
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from veko.extend import of_veko

from ..permissions import Grants

__all__ = ["Audit", "Environment"]

_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_HARMLESS: Final = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/etc/localtime",
                    "/usr/share/zoneinfo", "/proc/self", "/proc/meminfo", "/proc/cpuinfo",
                    "/sys/fs/cgroup")  # fmt: skip
"""What libraries look at for themselves; whether they may, the kernel decides."""
_MOST: Final = 4_000
"""Different accesses that are remembered, so that each is sent once."""
_PRIVATE: Final = ("HOME", "TMPDIR")
"""Variables that the launcher sets, to the worker's own folder."""
_MAPPINGS: Final = (os.__file__, "<frozen os>", "<frozen _collections_abc>")
"""Where `os.environ.get` and `os.getenv` are."""
_absolute = os.path.abspath  # of `os`, not `Path`: links are looked at by `Grants`
_Access = tuple[str, str]
Send = Callable[[str, str, str, str], None]
"""Sends `used` or `denied`, with kind, value and place."""


class Audit:
    """The audit hook of a worker; once installed it stays.

    Args:
        grants: What the plugin may do.
        send: Sends a note to the host; may be called in any thread.
    """

    def __init__(self, grants: Grants, send: Send) -> None:
        self._grants = grants
        self._send = send
        self._known: set[_Access] = set()
        self._here = threading.local()
        folder = os.path.realpath(grants.folder)
        self._own = (folder, str(grants.folder))
        runtime = {*sys.path, sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib")}
        # `/` is the prefix of nothing: a system's own Python lies in /usr.
        reads = {_absolute(one) for one in runtime if one} - {os.sep}
        reads |= {os.path.realpath(one) for one in reads} | {*self._own, *_HARMLESS}
        self._reads = tuple(sorted(reads))
        private = {str(Path.cwd())} - {str(grants.directory)}  # of a confined worker alone
        private.add(_HARMLESS[0])
        self._writes = tuple(sorted({*private, *map(os.path.realpath, private)}))

    def install(self) -> None:
        """Begin to look."""
        sys.addaudithook(self._look)

    def _look(self, event: str, args: tuple[Any, ...]) -> None:
        accesses = _EVENTS.get(event)
        if accesses is None or getattr(self._here, "busy", False):
            return
        self._here.busy = True  # what is asked here may open files too
        try:
            for kind, value in accesses(args):
                if not self._is_own(kind, value):
                    self._decide(kind, value)
        finally:
            self._here.busy = False

    def _is_own(self, kind: str, value: str) -> bool:
        if kind not in ("read:files", "write:files"):
            return False
        roots = self._writes if kind == "write:files" else (*self._reads, *self._writes)
        return any(value == one or value.startswith(one + os.sep) for one in roots)

    def _decide(self, kind: str, value: str) -> None:
        if (kind, value) in self._known:
            return
        if self._grants.allows(kind, value):
            if len(self._known) < _MOST:
                self._known.add((kind, value))
                self._send("used", kind, value, self.where())
            return
        where = self.where()
        self._send("denied", kind, value, where)
        permission = f"{kind}:{value}" if value else kind
        raise PermissionError(
            errno.EACCES,
            f"{permission} is not granted to the plugin {self._grants.plugin}. If it needs that, "
            f'add "{permission}" to its permissions',
        )

    def variable(self, name: str, *, is_set: bool) -> None:
        """Note that a variable of the environment is read.

        What a library of the plugin's looks for and does not find is none of the plugin's wishes.
        """
        if name in _PRIVATE or ("env:read", name) in self._known or len(self._known) >= _MOST:
            return
        where = self.where(near=not is_set)
        if where:
            self._known.add(("env:read", name))
            granted = self._grants.allows("env:read", name)
            self._send("used" if granted else "denied", "env:read", name, where)

    def where(self, *, near: bool = False) -> str:
        """Return the line of the plugin's code that runs; empty if none does.

        Args:
            near: Whether only code counts that asks for a variable itself.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            if any(file == one or file.startswith(one + os.sep) for one in self._own):
                return f"{file}:{frame.f_lineno}"
            if near and not of_veko(frame) and not file.startswith(_MAPPINGS):
                return ""
            frame = frame.f_back
        return ""


class Environment(os._Environ[str]):
    """`os.environ` that notes which variables the plugin's code asks for."""

    _audit: Audit

    @classmethod
    def install(cls, audit: Audit) -> None:
        """Let `os.environ`, which stays the same object, be of this class.

        Args:
            audit: Takes the names.
        """
        cls._audit = audit
        os.environ.__class__ = cls

    def __getitem__(self, name: str) -> str:
        try:
            value = super().__getitem__(name)
        except KeyError:
            self._audit.variable(name, is_set=False)
            raise
        self._audit.variable(name, is_set=True)
        return value


def _path(given: object) -> str | None:
    if isinstance(given, int) or given is None:
        return None
    try:
        path = os.fsdecode(given)  # type: ignore[arg-type]
    except TypeError:
        return None
    return _absolute(path)


def _opened(args: tuple[Any, ...]) -> Iterator[_Access]:
    path = _path(args[0])
    if path is not None:
        mode, flags = args[1], args[2]
        writes = any(one in mode for one in "wax+") if mode else bool(flags & _WRITING)
        yield ("write:files" if writes else "read:files"), path


def _reading(args: tuple[Any, ...]) -> Iterator[_Access]:
    path = _path(args[0])
    if path is not None:
        yield "read:files", path


def _writing(args: tuple[Any, ...]) -> Iterator[_Access]:
    path = _path(args[0])
    if path is not None:
        yield "write:files", path


def _two(args: tuple[Any, ...]) -> Iterator[_Access]:
    for given in args[:2]:
        yield from _writing((given,))


def _linked(args: tuple[Any, ...]) -> Iterator[_Access]:
    yield from _writing(args[1:])


def _database(args: tuple[Any, ...]) -> Iterator[_Access]:
    name = os.fsdecode(args[0]) if isinstance(args[0], str | bytes | Path) else ""
    if name and name != ":memory:" and not name.startswith("file:"):
        yield "write:files", _absolute(name)


def _endpoint(kind: str, address: object) -> Iterator[_Access]:
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = str(address[0]), address[1]
        yield kind, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _connected(args: tuple[Any, ...]) -> Iterator[_Access]:
    yield from _endpoint("net:connect", args[1])


def _bound(args: tuple[Any, ...]) -> Iterator[_Access]:
    if isinstance(args[1], tuple) and args[1][1:2] != (0,):  # a client's own end takes any port
        yield from _endpoint("net:listen", args[1])


def _started(args: tuple[Any, ...]) -> Iterator[_Access]:
    program = args[0] if args else ""
    yield "process:spawn", os.fsdecode(program) if isinstance(program, str | bytes | Path) else ""


def _forked(args: tuple[Any, ...]) -> Iterator[_Access]:
    yield "process:spawn", ""


_EVENTS: Final[dict[str, Callable[[tuple[Any, ...]], Iterator[_Access]]]] = {
    "open": _opened,
    **dict.fromkeys(("os.listdir", "os.scandir", "glob.glob"), _reading),
    **dict.fromkeys(
        ("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.utime",
         "os.setxattr", "os.removexattr"),
        _writing,
    ),
    "os.rename": _two,
    "os.link": _two,
    "os.symlink": _linked,
    "sqlite3.connect": _database,
    "socket.connect": _connected,
    "socket.sendto": _connected,
    "socket.bind": _bound,
    **dict.fromkeys(("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"), _started),
    **dict.fromkeys(("os.fork", "os.forkpty"), _forked),
}  # fmt: skip
"""What each of Python's audit events accesses."""

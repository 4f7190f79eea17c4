"""Landlock: which files, programs and TCP ports a process and what it starts may use.

The kernel enforces it, for any user, and nothing can take it back; see `landlock(7)`.
"""

import errno
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from ctypes import byref, c_char
from pathlib import Path

from . import native
from .confinement import Confinement

__all__ = ["abi", "restrict"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION = 1
_BENEATH, _PORT = 1, 2

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_FILES_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights to files that a version of Landlock knows."""
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
"""Rights that a rule for a file, not a folder, may have."""
_DEVICES = (1 << 6) | (1 << 11)  # to make device files: nobody may
_BIND, _CONNECT = 1 << 0, 1 << 1
_TCP_SINCE, _SCOPES_SINCE = 4, 6
_SCOPES = 0b11  # abstract Unix sockets, signals

_READ = _READ_FILE | _READ_DIR
_SYSTEM = (
    "/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib",
    "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo", "/usr/share/locale",
    "/etc/ssl", "/usr/share/ca-certificates", "/etc/mime.types",
    "/dev/urandom", "/dev/random", "/dev/zero", "/proc/self", "/proc/meminfo", "/proc/cpuinfo",
    "/proc/stat", "/sys/devices/system/cpu",
)  # fmt: skip
"""What programs read of the system itself: libraries, time zones, certificates, their own state."""
_LINKERS = ("/lib/ld-*", "/lib64/ld-*", "/lib/*-linux-*/ld-*", "/usr/lib/*-linux-*/ld-*")
"""The programs that load the libraries of a program that is executed."""


def abi() -> int:
    """Return the version of Landlock that the kernel has; 0 if it has none."""
    try:
        return native.syscall(_CREATE_RULESET, None, 0, _VERSION)
    except (OSError, AttributeError):
        return 0


def restrict(confinement: Confinement, *, version: int) -> None:
    """Confine this process to what it may do. It must have no other threads.

    Args:
        confinement: What it may do.
        version: What `abi` says.

    Raises:
        OSError: The kernel refused.
    """
    files = _FILES_BY_ABI[max(known for known in _FILES_BY_ABI if known <= version)]
    net = _BIND | _CONNECT if version >= _TCP_SINCE else 0
    if confinement.connect is None:
        net &= ~_CONNECT
    if confinement.listen is None:
        net &= ~_BIND
    scopes = _SCOPES if version >= _SCOPES_SINCE else 0
    attributes = struct.pack("=QQQ", files, net, scopes)
    size = 24 if version >= _SCOPES_SINCE else 16 if version >= _TCP_SINCE else 8
    ruleset = native.syscall(_CREATE_RULESET, _pointer(attributes[:size]), size, 0)
    try:
        for rights, paths, follow in _grants(confinement, files):
            for path in paths:
                _allow(ruleset, Path(path), rights & files, follow=follow)
        for right, ports in ((_CONNECT, confinement.connect), (_BIND, confinement.listen)):
            for port in (ports or ()) if net & right else ():
                rule = struct.pack("=QQ", right, port)
                native.syscall(_ADD_RULE, ruleset, _PORT, _pointer(rule), 0)
        native.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _grants(
    confinement: Confinement, files: int
) -> Iterator[tuple[int, Iterable[Path | str], bool]]:
    """Yield rights, the paths that get them, and whether links in these are followed."""
    yield _READ, confinement.read, False
    yield _READ, _SYSTEM, True
    yield files & ~_EXECUTE & ~_DEVICES & ~_IOCTL, confinement.write, False
    yield _READ_FILE | _WRITE_FILE, ("/dev/null",), True
    yield _READ | _EXECUTE, confinement.execute, True
    if confinement.execute:
        root = Path("/")
        yield _READ_FILE | _EXECUTE, [one for at in _LINKERS for one in root.glob(at[1:])], True


def _open(path: Path, *, follow: bool) -> int:
    """Open a path; without `follow`, one that leads through a symbolic link is not found.

    The host has resolved the links. An older version of the plugin, which runs on, could put
    another in between (`test_a_link_that_is_put_into_a_granted_path_grants_nothing`).
    """
    flags = os.O_PATH | os.O_CLOEXEC
    if follow:
        return os.open(path, flags)
    descriptor = os.open(path.anchor, flags)
    for part in path.parts[1:]:
        try:
            below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    if stat.S_ISLNK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "it is a symbolic link", str(path))
    return descriptor


def _allow(ruleset: int, path: Path, rights: int, *, follow: bool) -> None:
    try:
        descriptor = _open(path, follow=follow)
    except OSError as error:
        # What does not exist, or what this user cannot reach, grants nothing.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
            return
        raise
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        native.syscall(_ADD_RULE, ruleset, _BENEATH, _pointer(rule), 0)
    finally:
        os.close(descriptor)


def _pointer(data: bytes) -> object:
    return byref((c_char * len(data)).from_buffer_copy(data))

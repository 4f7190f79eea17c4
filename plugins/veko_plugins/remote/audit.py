"""Deno's audit trail: a line for each access that it checks, granted or not.

Deno decides by its flags. Its permission broker, which would ask the host about each access, was
measured and left out: it names no program that is to be started, takes paths as they are written,
does not check what a name resolves to, and needs a socket that the worker can connect to. The trail
costs a worker 5 µs an access (25 µs by the broker), and no time at its start.

Cost: for the host, a dict lookup a line that was seen before; a worker that writes faster than the
host reads waits.
Promise: bounded: a turn of the loop reads `_TURN` bytes, and a line that is longer is dropped.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import msgspec

from .accesses import Access, Watch, of_deno
from .links import is_below

__all__ = ["AuditTrail"]

_TURN: Final = 16 * 2**10
_MOST: Final = 4_000
_DATE: Final = len('{"v":1,"datetime":"2025-01-01T00:00:00Z",')


class _Line(msgspec.Struct):
    permission: str
    value: str | None = None


class AuditTrail:
    """The audit trail of one worker; close it when the worker has ended.

    Args:
        watch: Where the accesses go.
        own: The runtime's own files, which do not count.

    Attributes:
        descriptor: The end for the worker; close it with `started` once the worker has it.
    """

    def __init__(self, watch: Watch, own: tuple[Path, ...] = ()) -> None:
        self._watch = watch
        self._own = own
        self._buffer = b""
        self._skipping = False
        # By line without its date: which access it is, `None` if it does not count.
        self._known: dict[bytes, Access | None] = {}
        self._decoder = msgspec.json.Decoder(_Line)
        self._reader, self.descriptor = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader, self._read)

    @staticmethod
    def environment(number: int) -> dict[str, str]:
        """Return the variables for a worker that has the descriptor under a number."""
        return {"DENO_AUDIT_PERMISSIONS": f"/dev/fd/{number}"}

    def started(self) -> None:
        """Close the worker's end, which the worker has now."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def close(self) -> None:
        """Take what is left, and end."""
        self.started()
        while self._reader >= 0 and self._read():
            pass
        if self._reader >= 0:
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1

    def _read(self) -> bool:
        try:
            data = os.read(self._reader, _TURN)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1
            return False
        *lines, rest = (self._buffer + data).split(b"\n")
        for line in lines:
            if self._skipping:  # the end of a line that was too long
                self._skipping = False
            elif line:
                self._take(line)
        self._skipping = self._skipping or len(rest) > _TURN
        self._buffer = b"" if self._skipping else rest
        return True

    def _take(self, line: bytes) -> None:
        key = line[_DATE:]
        if key in self._known:
            access = self._known[key]
            if access is not None:
                access.times += 1
            return
        try:
            found = self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        kind, value = of_deno(found.permission, found.value or "")
        access = self._watch.seen(kind, value) if self._counts(kind, value) else None
        if len(self._known) < _MOST:
            self._known[key] = access

    def _counts(self, kind: str, value: str) -> bool:
        if kind == "sys" and self._watch.grants.everything:
            return False
        if kind not in ("read:files", "write:files") or not value:
            return kind != "sys" or value not in _HARMLESS
        if not Path(value).is_absolute():  # in the worker's folder, unless it climbs out of it
            return os.path.normpath(value).startswith(os.pardir)
        return not any(is_below(Path(value), one) for one in self._own)


_HARMLESS: Final = frozenset(
    ("hostname", "osRelease", "osUptime", "loadavg", "systemMemoryInfo", "uid", "gid", "cpus")
)

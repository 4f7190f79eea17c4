"""The audit log: each change, with the caller, the time and the address; one JSON object a line.

Cost: one short write for each change, login and refused request; looking is not written.
Promise: no secret and no configuration is in it; refused requests cannot fill it: a minute has
`_REFUSED` of them at most.
"""

from __future__ import annotations

import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from .._lib.private_files import PRIVATE, private_folder
from .access import Caller

__all__ = ["AUDIT_FILE", "Audit"]

AUDIT_FILE: Final = Path(".veko") / "admin-audit.jsonl"
_log: Final = logging.getLogger("veko.admin")
_REFUSED: Final = 60
_SIZE: Final = 10 * 2**20
_TEXT: Final = 500


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    at: datetime
    pid: int
    role: str
    way: str
    address: str
    verb: str
    target: str
    status: int
    change: str | None = None
    why: str | None = None


class Audit:
    """Writes the audit log.

    Args:
        directory: The application's directory; `None` to write nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / AUDIT_FILE
        self._minute = 0
        self._refused = 0

    def write(
        self,
        caller: Caller | None,
        verb: str,
        target: str,
        status: int,
        *,
        change: str | None = None,
        why: str | None = None,
        address: str = "",
    ) -> None:
        """Write a line.

        Args:
            caller: The caller; `None` if it is not known.
            verb: What was asked for.
            target: The plugin, or the path.
            status: The status of the answer.
            change: The id of the change that was done.
            why: Why it was refused.
            address: From where, if the caller is not known.
        """
        if self._path is None or (status >= 400 and not self._has_room()):
            return
        line = _Line(
            at=datetime.now(UTC),
            pid=os.getpid(),
            role=caller.role if caller is not None else "none",
            way=caller.way if caller is not None else "none",
            address=caller.address if caller is not None else address,
            verb=verb[:_TEXT],
            target=target[:_TEXT],
            status=status,
            change=change,
            why=None if why is None else why[:_TEXT],
        )
        try:
            self._append(self._path, msgspec.json.encode(line) + b"\n")
        except OSError as error:
            _log.error("the audit log cannot be written: %s", error)

    def _has_room(self) -> bool:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._refused = minute, 0
        self._refused += 1
        if self._refused == _REFUSED + 1:
            _log.warning("more requests to the management API are refused than the audit log takes")
        return self._refused <= _REFUSED

    @staticmethod
    def _append(path: Path, line: bytes) -> None:
        private_folder(path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(path, flags, PRIVATE)
        if os.fstat(descriptor).st_size > _SIZE:
            os.close(descriptor)
            path.replace(path.with_suffix(".1.jsonl"))
            descriptor = os.open(path, flags, PRIVATE)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

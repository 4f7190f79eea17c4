"""The other workers: a change is done in all of them, or in none.

Workers find each other by their control sockets. One that asks takes a lock that all share, so two
changes at once never wait for each other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from veko import StateError

from .._lib.control_files import answers, control_folder, live_sockets
from .client import AdminClient
from .intents import Intent

__all__ = ["Peers"]

_LOCK: Final = "lock"
_PATIENCE: Final = 60.0
_STEP: Final = 0.05


class Peers:
    """The other workers of an application.

    Args:
        directory: The application's directory.
        alone: Whether there are none.
    """

    def __init__(self, directory: Path, *, alone: bool = False) -> None:
        self._directory = directory
        self._alone = alone

    def pids(self) -> tuple[int, ...]:
        """Return the processes that have a control socket."""
        return () if self._alone else tuple(live_sockets(self._directory))

    async def others(self) -> dict[int, Path]:
        """Return the control sockets of the other workers; one that does not answer is left out."""
        if self._alone:
            return {}
        found = live_sockets(self._directory)
        if os.getpid() not in found:
            return {}  # this process serves nobody
        return {pid: p for pid, p in found.items() if pid != os.getpid() and answers(p)}

    async def plan(self, pid: int, intent: Intent) -> None:
        """Ask a worker whether it would refuse a change.

        Raises:
            VekoError: It would.
        """
        client = self._client(pid)
        if client is not None:
            await client.relay(intent, plan=True)

    async def apply(self, pid: int, intent: Intent, id: str, who: str) -> None:
        """Let a worker do a change.

        Raises:
            VekoError: It refused.
        """
        client = self._client(pid)
        if client is not None:
            await client.relay(intent, id=id, who=who)

    def _client(self, pid: int) -> AdminClient | None:
        path = live_sockets(self._directory).get(pid)
        return None if path is None else AdminClient(sockets=[path])

    @asynccontextmanager
    async def alone(self, relayed: bool) -> AsyncIterator[None]:
        """Keep other workers from beginning a change.

        Args:
            relayed: Whether another worker holds the lock for this one.

        Raises:
            StateError: Another change takes too long.
        """
        if self._alone or relayed or os.name != "posix" or len(self.pids()) < 2:
            yield
            return
        import fcntl

        path = control_folder(self._directory) / _LOCK
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for _ in range(int(_PATIENCE / _STEP)):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_STEP)
            else:
                raise StateError(
                    "another change is being made", remedy="Wait for it, and try again."
                )
            yield
        finally:
            os.close(descriptor)

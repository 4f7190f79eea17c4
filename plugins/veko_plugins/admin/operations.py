"""The service `admin`: the verbs of management, in Python.

HTTP, the Unix socket and agents all call these and nothing else. They know no roles: who may do
what is decided before.
"""

from __future__ import annotations

from .changing import Changing
from .documents import Role, Status

__all__ = ["Operations"]


class Operations(Changing):
    """What can be looked at and done; `await manager.administration()` returns it."""

    def status(self, role: Role = "operate", workers: tuple[int, ...] = ()) -> Status:
        """Return the state of the application, with the processes that serve it."""
        return super().status(role, workers or self._peers.pids())

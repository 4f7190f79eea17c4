"""The service `admin`: the verbs of management, in Python.

HTTP, the Unix socket and agents all call these and nothing else. They know no roles: who may do
what is decided before.
"""

from __future__ import annotations

from .reading import Reading

__all__ = ["Operations"]


class Operations(Reading):
    """What can be looked at and done; `await manager.administration()` returns it."""

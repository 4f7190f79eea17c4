"""Plugins in processes of their own: JavaScript, TypeScript, and Python that is isolated."""

from .accesses import Access
from .guard import ACCESSES, LockError, Permissions
from .lock import Entry, Lock, changes, digest

__all__ = ["ACCESSES", "Access", "Entry", "Lock", "LockError", "Permissions", "changes", "digest"]

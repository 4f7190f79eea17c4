"""Plugins in processes of their own: JavaScript, TypeScript, and Python that is isolated."""

from .accesses import Access
from .guard import ACCESSES, Permissions
from .learning import Learned, write_learned, write_manifest
from .lock import Entry, Lock, changes, digest
from .locking import LockError

__all__ = [
    "ACCESSES", "Access", "Entry", "Learned", "Lock", "LockError", "Permissions", "changes",
    "digest", "write_learned", "write_manifest",
]  # fmt: skip

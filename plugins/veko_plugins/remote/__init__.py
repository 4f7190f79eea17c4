"""Plugins in processes of their own: JavaScript, TypeScript, and Python that is isolated.

The names are imported at their first use: workers import rooms of this one, and should not pay for
the host's part.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .accesses import Access
    from .guard import ACCESSES, Permissions
    from .learning import Learned, write_learned, write_manifest
    from .lock import Entry, Lock, changes, digest
    from .locking import LockError
    from .plugin import Remote
    from .proxy import RemotePlugin

__all__ = [
    "ACCESSES", "Access", "Entry", "Learned", "Lock", "LockError", "Permissions", "Remote",
    "RemotePlugin", "changes", "digest", "write_learned", "write_manifest",
]  # fmt: skip

_FILES = {
    "accesses": ("Access",),
    "guard": ("ACCESSES", "Permissions"),
    "learning": ("Learned", "write_learned", "write_manifest"),
    "lock": ("Entry", "Lock", "changes", "digest"),
    "locking": ("LockError",),
    "plugin": ("Remote",),
    "proxy": ("RemotePlugin",),
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}

if not TYPE_CHECKING:  # else every misspelled name would pass type checkers

    def __getattr__(name: str) -> Any:
        file = _FILE_OF.get(name)
        if file is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        found = globals()[name] = getattr(import_module(f".{file}", __name__), name)
        return found

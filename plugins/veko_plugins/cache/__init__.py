"""The cache: values that are computed once and kept for a while, for one process or several.

See `entries` for what is written, `flights` for which task computes, `guarded` for servers that are
gone, `responses` for the middleware. An application without a cache imports the events alone; the
rest is imported when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .events import EVENTS

if TYPE_CHECKING:
    from .entries import Draft
    from .errors import CacheError, TooLarge
    from .plugin import CachePlugin, Settings
    from .service import Cache
    from .stats import CacheStats
    from .stored import StoredResponse

__all__ = [
    "EVENTS",
    "Cache",
    "CacheError",
    "CachePlugin",
    "CacheStats",
    "Draft",
    "Settings",
    "StoredResponse",
    "TooLarge",
]

_FILES = {
    "Cache": "service",
    "CacheError": "errors",
    "CachePlugin": "plugin",
    "CacheStats": "stats",
    "Draft": "entries",
    "Settings": "plugin",
    "StoredResponse": "stored",
    "TooLarge": "errors",
}

if not TYPE_CHECKING:  # else every misspelled name would pass type checkers

    def __getattr__(name: str) -> Any:
        file = _FILES.get(name)
        if file is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        found = globals()[name] = getattr(import_module(f".{file}", __name__), name)
        return found

"""The cache: values that are computed once and kept for a while, for one process or several.

See `entries` for what is written, `flights` for who computes, `guarded` for servers that are gone.
"""

from .entries import Draft
from .errors import CacheError, TooLarge
from .events import EVENTS
from .plugin import CachePlugin, Settings
from .service import Cache
from .stats import CacheStats

__all__ = [
    "EVENTS",
    "Cache",
    "CacheError",
    "CachePlugin",
    "CacheStats",
    "Draft",
    "Settings",
    "TooLarge",
]

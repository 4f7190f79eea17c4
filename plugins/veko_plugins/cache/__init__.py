"""The cache: values that are computed once and kept for a while, for one process or several.

See `entries` for what is written, `flights` for which task computes, `guarded` for servers that are
gone, `responses` for the middleware.
"""

from .entries import Draft
from .errors import CacheError, TooLarge
from .events import EVENTS
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

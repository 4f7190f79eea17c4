"""What the cache refuses."""

from __future__ import annotations

from veko.errors import VekoError

__all__ = ["CacheError", "Refused", "TooLarge"]


class CacheError(VekoError):
    """A key, a value, a lifetime or a tag is not valid. A server that is gone raises nothing."""


class TooLarge(CacheError):
    """A value has more bytes than `max_value` allows."""


class Refused(Exception):
    """A server answers, and refuses: it is out of memory, say. It is not gone."""

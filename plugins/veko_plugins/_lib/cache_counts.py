"""The hits and misses of the cache, for plugins that show or export them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["CacheCounts", "cache_counts"]


class CacheCounts(Protocol):
    """What the core plugin `cache` has counted for a plugin."""

    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def rate(self) -> float | None: ...


def cache_counts(kernel: Kernel) -> Callable[[str], CacheCounts] | None:
    """Return what counts by plugin; `None` if the core plugin `cache` is not loaded.

    The service `cache` may be that of another plugin, which has other methods.
    """
    entry, record = kernel.registry.get("service", "cache"), kernel.get("cache")
    if entry is None or record is None or not record.core:
        return None
    if getattr(entry.owner, "name", None) != record.name:
        return None
    return getattr(entry.value, "stats", None)

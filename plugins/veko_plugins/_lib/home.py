"""A plugin's own files: where they lie, and what they have allocated."""

from __future__ import annotations

import glob
import tracemalloc
from pathlib import Path

from veko import PluginRecord

__all__ = ["allocated", "home_of"]


def home_of(record: PluginRecord) -> Path | None:
    """Return a plugin's file, or its folder; `None` if it did not come from files."""
    source = record.source
    if source is None:
        return None
    return source.parent if source.name == "__init__.py" else source


def allocated(record: PluginRecord) -> int | None:
    """Ask tracemalloc for the bytes that a plugin's files have allocated and not freed.

    Returns:
        `None` if it did not come from files, or nothing is traced.
    """
    home = home_of(record)
    if home is None or not tracemalloc.is_tracing():
        return None
    own = glob.escape(str(home)) + ("/*" if home.is_dir() else "")
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, own)])
    return sum(trace.size for trace in snapshot.traces)

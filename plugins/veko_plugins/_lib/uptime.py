"""How long a plugin has been there."""

from __future__ import annotations

from datetime import UTC, datetime

from veko import PluginRecord

__all__ = ["uptime_of"]


def uptime_of(record: PluginRecord) -> float:
    """Return the seconds since a plugin was loaded or reloaded; 0 if it is not loaded."""
    if not record.loaded or record.loaded_at is None:
        return 0.0
    # By the wall clock, which may be set back.
    return max(0.0, (datetime.now(UTC) - record.loaded_at).total_seconds())

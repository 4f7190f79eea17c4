"""The states of a plugin, and the moves between them, as data."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["MOVES", "State"]


class State(enum.StrEnum):
    """Where a plugin is in its life."""

    DISCOVERED = "discovered"
    RESOLVED = "resolved"
    LOADING = "loading"
    ACTIVE = "active"
    INACTIVE = "inactive"
    UNLOADING = "unloading"
    UNLOADED = "unloaded"
    FAILED = "failed"


MOVES: Final[dict[State, frozenset[State]]] = {
    State.DISCOVERED: frozenset({State.RESOLVED, State.FAILED}),
    State.RESOLVED: frozenset({State.LOADING, State.FAILED}),
    State.LOADING: frozenset({State.ACTIVE, State.FAILED}),
    State.ACTIVE: frozenset({State.INACTIVE, State.UNLOADING, State.FAILED}),
    State.INACTIVE: frozenset({State.ACTIVE, State.UNLOADING, State.FAILED}),
    State.UNLOADING: frozenset({State.UNLOADED, State.FAILED}),
    State.UNLOADED: frozenset({State.LOADING}),
    State.FAILED: frozenset({State.LOADING, State.ACTIVE, State.INACTIVE, State.UNLOADING}),
}
"""Which states may follow each state."""

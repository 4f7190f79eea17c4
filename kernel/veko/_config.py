"""Configurations: nested mappings of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["merge"]


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two configurations deep; neither is changed nor shared."""
    merged: dict[str, Any] = {}
    for key in (*under, *(key for key in over if key not in under)):
        value = over.get(key, under.get(key))
        below = under.get(key)
        if isinstance(value, Mapping):
            value = merge(below if isinstance(below, Mapping) else {}, value)
        elif isinstance(value, list):
            value = list(value)
        merged[key] = value
    return merged

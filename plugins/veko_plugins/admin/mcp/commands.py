"""The commands of plugins as tools: there while their plugin is on, gone when it is not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["PREFIX", "Row", "description_of", "names_of", "schema_of"]

PREFIX: Final = "command_"
Row = dict[str, Any]
"""A command, as the endpoint lists it."""
_NOT_ALLOWED: Final = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST: Final = 64  # clients cut or refuse longer names


def names_of(rows: Iterable[Row]) -> Mapping[str, Row]:
    """Return commands by the names of their tools.

    A tool's name has letters, digits, `.`, `_` and `-` only, so `links:prune` is
    `command_links_prune`. Where two commands would have one name, or a name is too long, a part of
    its hash is added, so the name depends on the command alone.
    """
    found: dict[str, Row] = {}
    plain = [(_NOT_ALLOWED.sub("_", row["name"]), row) for row in rows]
    for name, row in plain:
        same = sum(1 for other, _ in plain if other == name) > 1
        full = f"{PREFIX}{name}"
        if same or len(full) > _LONGEST:
            digest = hashlib.sha256(row["name"].encode()).hexdigest()[:8]
            full = f"{full[: _LONGEST - 9]}_{digest}"
        found[full] = row
    return found


def description_of(row: Row) -> str:
    """Return the description of a command's tool."""
    said = row["description"].strip() or "No description."
    return f"{said} (The command {row['name']}{row['signature']} of the plugin {row['plugin']}.)"


def schema_of(row: Row) -> dict[str, Any]:
    """Return the JSON Schema of a command's arguments: always an object, as clients need it."""
    schema = dict(row["parameters"]) or {"properties": {}}
    return {"type": "object", **schema}

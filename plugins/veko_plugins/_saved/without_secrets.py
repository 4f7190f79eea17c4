"""Configurations without their secrets, and with them again.

Secrets are known by name, wherever in a configuration the name stands: rather too much is left out
than too little. A list that holds one is left out as a whole, as its items have no names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

__all__ = ["Path", "put_back", "without"]

Path = tuple[str, ...]
_NOTHING: Final = object()


def without(
    config: Mapping[str, Any], names: AbstractSet[str | None], path: Path = ()
) -> tuple[dict[str, Any], list[Path]]:
    """Take the secrets out of a configuration.

    Args:
        config: The configuration.
        names: What `secret_names` says of its schema; with `None` whatever is no mapping is secret.
        path: Where it stands in a larger one.

    Returns:
        The configuration without them, and where they were.
    """
    kept: dict[str, Any] = {}
    left: list[Path] = []
    for key, value in config.items():
        here = (*path, str(key))
        if key in names:
            left.append(here)
        elif isinstance(value, Mapping):
            kept[key], deeper = without(value, names, here)
            left += deeper
        elif None in names or _hides(value, names):
            left.append(here)
        else:
            kept[key] = value
    return kept, left


def _hides(value: object, names: AbstractSet[str | None]) -> bool:
    if not isinstance(value, list | tuple):
        return False
    return any(
        bool(without(item, names)[1]) if isinstance(item, Mapping) else _hides(item, names)
        for item in value
    )


def put_back(
    config: Mapping[str, Any], left: Iterable[Path], current: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Path]]:
    """Put what was left out back, as another configuration has it.

    Returns:
        The configuration, and what the other one has not either.
    """
    whole = {**config}
    missing: list[Path] = []
    for path in left:
        found: Any = current
        for key in path:
            found = found.get(key, _NOTHING) if isinstance(found, Mapping) else _NOTHING
        if found is _NOTHING:
            missing.append(path)
            continue
        place = whole
        for key in path[:-1]:
            below = place.get(key)
            place[key] = {**below} if isinstance(below, Mapping) else {}
            place = place[key]
        place[path[-1]] = found
    return whole, missing

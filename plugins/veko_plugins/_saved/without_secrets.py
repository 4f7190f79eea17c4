"""Takes the secrets out of a configuration, and puts them back.

Secrets are found by name anywhere in a configuration: leaving out too much is safer than too
little. A list that contains a secret is left out as a whole, because its items have no names.
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
        names: The result of `secret_names` for its schema; with `None` in it, every value that is
            not a mapping is secret.
        path: The path of the configuration in a larger one.

    Returns:
        The configuration without secrets, and the paths of the secrets.
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
    """Put values that were left out back into a configuration.

    Args:
        config: The configuration without them.
        left: Their paths.
        current: The configuration to take them from.

    Returns:
        The complete configuration, and the paths that `current` lacks too.
    """
    complete = {**config}
    missing: list[Path] = []
    for path in left:
        found: Any = current
        for key in path:
            found = found.get(key, _NOTHING) if isinstance(found, Mapping) else _NOTHING
        if found is _NOTHING:
            missing.append(path)
            continue
        inner = complete
        for key in path[:-1]:
            below = inner.get(key)
            inner[key] = {**below} if isinstance(below, Mapping) else {}
            inner = inner[key]
        inner[path[-1]] = found
    return complete, missing

"""Configurations: nested mappings of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._bus.bus import Bus
from ..errors import ConfigError, VekoError
from .generation import Generation

__all__ = ["as_config", "merge_config", "validated"]


def as_config(given: Any, plugin: str) -> dict[str, Any]:
    """Return the configuration that a plugin was given, as a dict; `None` stands for an empty one.

    Raises:
        ConfigError: It is not a mapping.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"its configuration is of type {type(given).__name__}, not a mapping",
            plugin=plugin,
            remedy="Give a mapping, such as {'port': 25}.",
        )
    return dict(given)


def merge_config(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two configurations deep: mappings into mappings, any other value replaces.

    Args:
        under: The configuration with the lower precedence, such as the defaults.
        over: The configuration whose values win.

    Returns:
        A new configuration, which shares no mapping and no list with the two.
    """
    merged: dict[str, Any] = {}
    for key in (*under, *(key for key in over if key not in under)):
        value = over.get(key, under.get(key))
        below = under.get(key)
        if isinstance(value, Mapping):
            value = merge_config(below if isinstance(below, Mapping) else {}, value)
        elif isinstance(value, list):
            value = list(value)
        merged[key] = value
    return merged


async def validated(bus: Bus, generation: Generation, given: Mapping[str, Any]) -> Any:
    """Return the configuration that `config:validate` makes of the given one and the defaults.

    Raises:
        ConfigError: A hook refused it.
    """
    merged = merge_config(generation.plugin.manifest.default_config, given)
    try:
        return await bus.emit("config:validate", merged, generation, strict=True)
    except VekoError:
        raise
    except Exception as error:
        raise ConfigError(
            f"a hook refused its configuration: {type(error).__name__}: {error}",
            plugin=generation.name,
            event="config:validate",
            remedy="The cause is what the hook raised.",
        ) from error

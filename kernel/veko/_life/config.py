"""Configurations: nested mappings of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._bus.bus import Bus
from ..errors import ConfigError, VekoError
from .generation import Generation

__all__ = ["as_config", "merge", "validated"]


def as_config(given: Any, plugin: str) -> dict[str, Any]:
    """Return what somebody gave as a plugin's configuration; `None` stands for none.

    Raises:
        ConfigError: It is no mapping.
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


async def validated(bus: Bus, generation: Generation, given: Mapping[str, Any]) -> Any:
    """Return the configuration that `config:validate` makes of what is given.

    Raises:
        ConfigError: A hook refused it.
    """
    merged = merge(generation.manifest.default_config, given)
    try:
        return await bus.emit("config:validate", merged, generation, strict=True)
    except VekoError:
        raise
    except Exception as error:
        raise ConfigError(
            f"a hook refused its configuration: {type(error).__name__}: {error}",
            plugin=generation.name,
            event="config:validate",
            remedy="What the hook raised is the cause.",
        ) from error

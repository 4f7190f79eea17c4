"""Configurations: nested mappings of plain values, and how they change.

The configuration of a generation has a lock of its own: a change does not wait for calls to end,
and such a call may make it.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from .._bus.bus import Bus
from ..errors import ConfigError, StateError, VekoError
from .generation import Generation, PluginRecord
from .locks import Operation

__all__ = ["as_config", "configuring", "merge_config", "update", "validated"]


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
        return await bus.emit("config:validate", merged, _record_of(generation), strict=True)
    except VekoError:
        raise
    except Exception as error:
        raise ConfigError(
            f"a hook refused its configuration: {type(error).__name__}: {error}",
            plugin=generation.name,
            event="config:validate",
            remedy="The cause is what the hook raised.",
        ) from error


def _record_of(generation: Generation) -> PluginRecord:
    """Return the record of a generation's plugin, as it will be with that generation."""
    record = generation.record
    if record.plugin is generation.plugin:
        return record
    seen = copy.copy(record)  # a reload is under way: the record itself shows what is live
    seen.plugin, seen.current = generation.plugin, generation
    return seen


@asynccontextmanager
async def configuring(generation: Generation) -> AsyncIterator[None]:
    """Keep others from changing the configuration of a generation.

    Raises:
        StateError: It is being changed here already.
    """
    if Operation.on(generation) is not None:
        raise StateError(
            "its configuration is being validated here, so this would wait for itself",
            plugin=generation.name,
            remedy="A hook on config:validate returns what to change.",
        )
    async with generation.configuring:
        with Operation(generation):
            yield


async def update(
    bus: Bus, generation: Generation, changes: Mapping[str, Any], *, exactly: bool = False
) -> Any:
    """Merge changes into the configuration of a generation; call it within `configuring`.

    Args:
        bus: The bus.
        generation: The generation.
        changes: The changes.
        exactly: Whether they replace what it was given.

    Returns:
        The new configuration.

    Raises:
        ConfigError: It was refused; the old one stays.
    """
    under = {} if exactly else generation.given
    given = merge_config(under, as_config(changes, generation.name))
    with bus.step("configure", generation.record):
        config = await validated(bus, generation, given)
    generation.given, generation.config = given, config
    return config

"""What a restart keeps: which plugins are loaded, from where, how configured, and which are off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from veko import Context, Kernel, PluginRecord, State, VekoError

from .._saved.plugins import given_config, loaded_plugins
from .._source.source import Form, Kept, Source

__all__ = ["kept_plugins", "switch_off_again"]

_log: Final = logging.getLogger("veko.manager")


def kept_plugins(
    context: Context, origin: Callable[[PluginRecord], Form | Source]
) -> dict[str, Kept]:
    """Return the loaded plugins of the application, by name, in load order.

    Args:
        context: The context of a core plugin.
        origin: Returns what a plugin was loaded from.
    """
    health = context.kernel.registry.get("service", "health")
    kept: dict[str, Kept] = {}
    for record in loaded_plugins(context):
        # What a breaker has switched off is tried again: the breaker starts again, too.
        by_breaker = health is not None and health.value.keeps_off(record.name)
        off = record.state is State.INACTIVE and not by_breaker
        kept[record.name] = Kept(origin(record), given_config(record), off)
    return kept


async def switch_off_again(kernel: Kernel, kept: Mapping[str, Kept]) -> None:
    """Switch the plugins off that were off; one that cannot be is logged and stays on."""
    for name, one in reversed(list(kept.items())):
        record = kernel.get(name)
        if not one.off or record is None or not record.active:
            continue
        try:
            await kernel.toggle(name, False)
        except VekoError as error:
            _log.warning("%s was switched off before the restart and is on: %s", name, error)

"""What stands for plugins that wait for their first use, for those that show or run it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from veko import Plugin, PluginRecord, StateError

__all__ = ["FIRST_USE", "FirstUse", "Waiting", "state_of"]

FIRST_USE: Final = "first use"
"""The value of the manifest field `activation`."""


class Waiting(Plugin):
    """The base of plugins that stand for others whose modules have not run yet."""


class FirstUse:
    """The function of a command whose plugin waits.

    Args:
        plugin: The plugin's name.
        wake: Loads it.
    """

    def __init__(self, plugin: str, wake: Callable[[str], Awaitable[None]]) -> None:
        self._plugin = plugin
        self._wake = wake

    async def arrive(self) -> None:
        """Load the plugin: afterwards the command is the plugin's own.

        Raises:
            LoadError: It cannot be loaded.
        """
        await self._wake(self._plugin)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Refuse: what runs a command calls `arrive` first.

        Raises:
            StateError: Always.
        """
        raise StateError("it waits for its first use", plugin=self._plugin)


def state_of(record: PluginRecord) -> str:
    """Return the state of a plugin as people see it: `waiting` is a part of `active`."""
    return "waiting" if record.active and isinstance(record.plugin, Waiting) else record.state.value

"""The events that the kernel itself fires (those of failing are declared by the bus)."""

from __future__ import annotations

from typing import Final

from .._bus.events import Event

__all__ = ["EVENTS"]

_STEP = "Before the step; raising refuses it. The plugin's name and the plugin."
_DONE = "After the fact. The plugin's name and the plugin."
EVENTS: Final = (
    Event("plugin:load", payload=str, doc=f"A plugin is loaded. {_STEP}"),
    Event("plugin:unload", payload=str, doc=f"A plugin is unloaded. {_STEP}"),
    Event("plugin:activate", payload=str, doc=f"A plugin is switched on. {_STEP}"),
    Event("plugin:deactivate", payload=str, doc=f"A plugin is switched off. {_STEP}"),
    Event("plugin:reload", payload=str, doc=f"A plugin gets a new generation. {_STEP}"),
    Event("plugin:loaded", payload=str, doc=_DONE),
    Event("plugin:unloaded", payload=str, doc=_DONE),
    Event(
        "plugin:retired",
        payload=str,
        doc="A generation that was replaced is over. The plugin's name, the plugin, and the "
        "`Plugin` that it was.",
    ),
    Event("plugin:activated", payload=str, doc=_DONE),
    Event("plugin:deactivated", payload=str, doc=_DONE),
    Event(
        "config:validate",
        returns=True,
        doc="Before a configuration is taken; what is returned is. The configuration and the "
        "plugin.",
    ),
    Event(
        "config:change",
        doc="A configuration was changed, by `update_config` or by a reload that gave another. The "
        "configuration and the plugin.",
    ),
    Event(
        "error:critical",
        payload=BaseException,
        doc="An error that stops a plugin or the system. The error and its `Origin`.",
    ),
)

"""The events that the kernel itself emits; the bus declares those about failures."""

from __future__ import annotations

from typing import Final

from .._bus.events import Event

__all__ = ["EVENTS"]

_NAMES = "Arguments: the plugin's name, the plugin."
_STEP = f"{_NAMES} Raising refuses it."
EVENTS: Final = (
    Event("plugin:load", payload=str, doc=f"A plugin is about to be loaded. {_STEP}"),
    Event("plugin:unload", payload=str, doc=f"A plugin is about to be unloaded. {_STEP}"),
    Event("plugin:activate", payload=str, doc=f"A plugin is about to be switched on. {_STEP}"),
    Event("plugin:deactivate", payload=str, doc=f"A plugin is about to be switched off. {_STEP}"),
    Event(
        "plugin:reload",
        payload=str,
        doc=f"A plugin is about to be replaced by a new generation. {_STEP}",
    ),
    Event("plugin:loaded", payload=str, doc=f"A plugin was loaded. {_NAMES}"),
    Event("plugin:unloaded", payload=str, doc=f"A plugin was unloaded. {_NAMES}"),
    Event(
        "plugin:retired",
        payload=str,
        doc="A generation that was replaced has ended. Arguments: the plugin's name, the plugin, "
        "the `Plugin` of the old generation.",
    ),
    Event("plugin:activated", payload=str, doc=f"A plugin was switched on. {_NAMES}"),
    Event("plugin:deactivated", payload=str, doc=f"A plugin was switched off. {_NAMES}"),
    Event(
        "config:validate",
        returns=True,
        doc="A configuration is about to be accepted. Arguments: the configuration, the plugin. A "
        "handler may return another configuration; raising refuses it.",
    ),
    Event(
        "config:change",
        doc="A configuration was changed, by `update_config` or by a reload. Arguments: the "
        "configuration, the plugin.",
    ),
    Event(
        "error:critical",
        payload=BaseException,
        doc="An error stopped a plugin or the system. Arguments: the error, its `Origin`.",
    ),
)

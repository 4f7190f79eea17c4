"""The plugin as the worker's kernel sees it: its steps are watched, and `activate` waits.

Between `load()` and `activate()` the host stages what the plugin has registered; so the worker's
kernel stops there, inside the step `activate`, until the host continues or refuses.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from veko import Plugin

__all__ = ["STEPS", "Resident"]

STEPS: Final = ("load", "unload", "activate", "deactivate", "export_state", "import_state")


class Resident(Plugin):
    """Stands for the plugin in the worker's kernel.

    Args:
        plugin: The plugin, its manifest checked.
        stand_by: Is called once, when `load()` has returned.

    Attributes:
        standing_by: Done when `load()` has returned and what it registered was shown to the host.
        go_on: Set by the host's `activate`, or to the error that refuses the load.
        raised: What the plugin's own step raised last.
        steps: The names under which the kernel reports failures of steps.
    """

    def __init__(self, plugin: Plugin, stand_by: Callable[[], Awaitable[None]]) -> None:
        self._plugin = plugin
        self._stand_by = stand_by
        loop = asyncio.get_running_loop()
        self.standing_by: asyncio.Future[None] = loop.create_future()
        self.go_on: asyncio.Future[None] = loop.create_future()
        self.raised: BaseException | None = None
        self.manifest = plugin.manifest
        self.name = plugin.manifest.name
        self.version = plugin.manifest.version
        self.source = plugin.source
        self.module = plugin.module
        self.steps = {f"{self.name}.{step}" for step in (*STEPS, "accept")}

    @property
    def exports(self) -> Any:
        """What other plugins may use of it."""
        return self._plugin.exports

    def life_cycle(self, name: str) -> Callable[..., Any] | None:
        """Return the function of a step; there is always an `activate`."""
        if name == "activate":
            return self._activate
        return self._plugin.life_cycle(name)

    def call_life_cycle(self, name: str, app: object, config: object, context: object) -> Any:
        """Call the function of a step."""
        if name == "activate":
            return self._activate(app, config, context)
        return self._call(name, app, config, context)

    async def _activate(self, app: object, config: object, context: object) -> None:
        if not self.standing_by.done():
            await self._stand_by()
            self.standing_by.set_result(None)
            await self.go_on
        await self._call("activate", app, config, context)

    async def _call(self, name: str, app: object, config: object, context: object) -> Any:
        try:
            answer = self._plugin.call_life_cycle(name, app, config, context)
            return await answer if inspect.isawaitable(answer) else answer
        except BaseException as error:
            self.raised = error
            raise

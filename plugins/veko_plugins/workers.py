"""The core plugin `workers`: what is switched or configured in one worker reaches the others.

`veko serve --workers N` adds it if the workers share a storage. A change is written there with the
name of this run of the application; the others hear of it through the storage's watch. A worker
that starts later, or replaces one that exited, takes over all changes of the run. A new run starts
with the settings, and removes what former runs of the same address have left.

Promise: the workers agree on the last change that the storage got. Secrets are not written to the
storage: a configuration's secrets stay as each worker has them.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from veko import Context, Plugin, PluginRecord, VekoError

from ._saved.plugins import SavedPlugin, completed_config, given_config, saved_plugins

__all__ = ["Workers"]


class Workers(Plugin):
    """Keeps the plugins of one worker as those of the others.

    Args:
        address: The address that the application listens on; its former runs had the same.
        run: The name of this run, the same in all its workers.
    """

    name = "workers"
    version = "2.0.0"
    description = "Switches and configures plugins as the other workers do."
    core = True

    _context: Context
    _storage: Any

    def __init__(self, address: str, run: str) -> None:
        self._address = f"{address}/"
        self._run = f"{address}/{run}/"
        self._serves = False

    def load(self, context: Context) -> None:
        """Hook what changes plugins, if there is a storage."""
        self._context = context
        if context.kernel.registry.get("service", "storage") is None:
            return
        self._storage = context.use("storage").namespace(self.name)
        context.hook("app:start", self._on_start, priority=math.inf, timeout=None)
        context.hook("app:stop", self._on_stop, priority=math.inf, timeout=None)
        for event in ("plugin:activated", "plugin:deactivated"):
            context.hook(event, self._on_switched, timeout=None)
        context.hook("config:change", self._on_configured, timeout=None)

    async def _on_start(self) -> None:
        for key in self._storage:
            if key.startswith(self._address) and not key.startswith(self._run):
                self._storage.delete(key)
        changes = self._storage.watch(self._run)
        for key, saved in self._storage.items():
            if key.startswith(self._run):
                await self._take_over(saved)
        self._serves = True
        self._context.spawn(self._follow, changes)

    def _on_stop(self) -> None:
        self._serves = False

    async def _follow(self, changes: Any) -> None:
        async for change in changes:
            if not change.deleted:
                await self._take_over(change.value)

    async def _on_switched(self, name: str, record: PluginRecord) -> None:
        await self._share(record)

    async def _on_configured(self, config: object, record: PluginRecord) -> None:
        await self._share(record)

    async def _share(self, record: PluginRecord) -> None:
        """Write how a plugin is now, unless that is how the others have it."""
        if not self._serves or not _is_shared(record):
            return
        (now,) = saved_plugins([record])
        saved = msgspec.structs.replace(now, source=None)
        key = self._run + record.name
        before = self._storage.get(key)
        if before is None or _differ(msgspec.convert(before, SavedPlugin), saved):
            await self._storage.set(key, msgspec.to_builtins(saved))

    async def _take_over(self, value: object) -> None:
        """Switch and configure a plugin as another worker has it."""
        try:
            saved = msgspec.convert(value, SavedPlugin)
            record = self._record(saved.name)
            if record is None:
                return
            config, _ = completed_config(saved, given_config(record))
            if config != given_config(record):
                await self._context.kernel.update_config(saved.name, config)
            if record.active != saved.active:
                await self._context.kernel.toggle(saved.name, saved.active)
        except (VekoError, ValueError) as error:
            self._context.log("error", f"a change of another worker was not taken over: {error}")

    def _record(self, name: str) -> PluginRecord | None:
        record = self._context.kernel.get(name)
        return record if record is not None and _is_shared(record) else None


def _is_shared(record: PluginRecord) -> bool:
    """Return whether the workers agree on a plugin: any of the application; a core one may ask."""
    shared = not record.core or getattr(record.plugin, "shared_config", False) is True
    return record.loaded and shared


def _differ(one: SavedPlugin, other: SavedPlugin) -> bool:
    return (one.active, one.config) != (other.active, other.config)

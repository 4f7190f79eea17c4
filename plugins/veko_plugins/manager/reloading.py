"""How plugins reload: import again, check, swap; and how they roll back.

The plugins that need a reloaded plugin are imported again with it. While a new generation is on
probation, a snapshot of what it replaced is kept: sources only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from veko import Context, Plugin, PluginRecord
from veko.errors import (
    ConflictError,
    DependencyError,
    LoadError,
    ManifestError,
    NotFoundError,
)

from .._saved.plugins import given_config
from .._source.content import differing
from .imports import Imported, Imports, Snapshot
from .plugin_checks import PluginChecks
from .records import get_loaded

if TYPE_CHECKING:
    from ..config import Config
    from ..loader import Loaded

__all__ = ["Around", "Reloading"]

Around = Callable[[Plugin], AbstractContextManager[None]]


class _Next(msgspec.Struct):
    """The next generation of a plugin, and what it is now, if that is worth a snapshot."""

    record: PluginRecord
    imported: Imported
    snapshot: Snapshot | None = None


class Reloading:
    """Reloads and rolls back the plugins of one run of the manager.

    Args:
        context: The context of the core plugin `loading`.
        imports: What the plugins run on.
        checks: What is checked before a generation loads.
        keep_snapshots: Whether new generations are on probation.
    """

    def __init__(
        self, context: Context, imports: Imports, checks: PluginChecks, keep_snapshots: bool
    ) -> None:
        self._context = context
        self._kernel = context.kernel
        self._imports = imports
        self._checks = checks
        self._keep_snapshots = keep_snapshots

    async def reload(
        self,
        name: str,
        config: Mapping[str, Any] | None,
        *,
        drained: bool = True,
        around: Around | None = None,
    ) -> PluginRecord:
        """Give a plugin a new generation; see `Loading.reload_plugin`."""
        record = get_loaded(self._kernel, name)
        try:
            imported = await self._imports.make_again(record)
            renamed = imported.plugin.manifest.name != name
            first = None if renamed else self._checked(record, imported, {})
        except Exception as error:
            await self._kernel.bus.report(error, owner=record, handler="reload")
            raise
        with nullcontext() if around is None else around(imported.plugin):
            if first is None:
                return await self._rename(record, imported, config)
            if (config or around) and self._keep_snapshots:  # the files may be the same
                first.snapshot = self._imports.snapshot(record)
            await self._swap(first, config, self._imported)
        self._imports.rejected.pop(name, None)
        for retirement in record.retiring[-1:] if drained else ():
            await retirement.done.wait()
        return record

    async def _rename(
        self, record: PluginRecord, imported: Imported, config: Mapping[str, Any] | None
    ) -> PluginRecord:
        """Replace a plugin by what its files hold now, which has another name.

        Both have the same routes and commands, so the old one goes first. It comes back as it was
        if the new one does not load.
        """
        plugin, old, kernel = imported.plugin, record.name, self._kernel
        new, back, was_active = plugin.manifest.name, self._imports.snapshot(record), record.active
        try:
            users = sorted(one.name for one in kernel.dependents(old))
            taken = kernel.get(new)
            if users:
                raise DependencyError(
                    f"its name is {new!r} now, and {', '.join(users)} need it as {old!r}",
                    plugin=old,
                    path=plugin.source,
                    remedy="Change the name in their `dependencies` too, or take it back.",
                )
            if taken is not None and taken.loaded:
                raise ConflictError(
                    f"its name is {new!r} now, and another plugin has that name",
                    plugin=old,
                    path=plugin.source,
                    remedy="Choose another name.",
                )
            self._checks.check(plugin)
            settings: Config = self._context.use("config")
            given = settings.section(new, config) or given_config(record)
            await kernel.unload(old)
        except BaseException as error:
            self._imports.dispose(imported)
            if isinstance(error, Exception):
                await kernel.bus.report(error, owner=record, handler="reload")
            raise
        try:
            fresh = await kernel.load(plugin, given)
        except BaseException:
            self._imports.drop(imported)
            if back is not None:
                with anyio.CancelScope(shield=True):
                    was = (await self._as_it_was(record, back)).imported
                    await kernel.load(was.plugin, back.given)
                    self._imports.keep(old, was)
                    if not was_active:
                        await kernel.toggle(old, False)
            raise
        self._imports.keep(new, imported)
        if not was_active:
            await kernel.toggle(new, False)
        return fresh

    async def roll_back(self, name: str) -> PluginRecord:
        """Give a plugin a generation of what it was before its probation.

        Raises:
            NotFoundError: It is not on probation.
            VekoError: What it was cannot be loaded any more; it stays as it is.
        """
        snapshot, record = self._imports.snapshots.pop(name, None), self._kernel.get(name)
        current = self._imports.current(name)
        if snapshot is None or record is None or current is None or current.loaded is None:
            raise NotFoundError(
                f"{name!r} is not on probation",
                plugin=name,
                remedy="Reload it from the files that it should run.",
            )
        self._imports.rejected[name] = current.loaded.content
        await self.go_back(record, snapshot)
        return record

    async def go_back(self, record: PluginRecord, snapshot: Snapshot) -> None:
        """Give a plugin a generation of what it was, with the configuration that it had.

        Raises:
            VekoError: What it was cannot be loaded any more; it stays as it is.
        """
        try:
            first = await self._as_it_was(record, snapshot)
            await self._swap(first, snapshot.given, self._as_it_is)
        except LoadError as error:
            if error.step not in ("export_state", "import_state"):
                raise
            first = await self._as_it_was(record, snapshot)
            _without_state(first.imported.plugin)  # the failing version may have damaged it
            await self._swap(first, snapshot.given, self._as_it_is)

    async def _swap(
        self,
        first: _Next,
        config: Mapping[str, Any] | None,
        make: Callable[[PluginRecord, Mapping[str, str]], Awaitable[_Next]],
    ) -> None:
        """Let the kernel swap a plugin and those that need it, and note what they run on."""
        group = [first]

        async def dependents(record: PluginRecord) -> Plugin:
            for former in [one for one in group if one.record is record]:
                group.remove(former)  # the kernel begins again: others came to need the plugin
                self._imports.drop(former.imported)
            versions = {one.record.name: one.imported.plugin.manifest.version for one in group}
            group.append(await make(record, versions))
            self._keep_snapshot(group[-1])
            return group[-1].imported.plugin

        swapped = False
        try:
            self._keep_snapshot(first)
            plugin = first.imported.plugin
            await self._kernel.reload(plugin, config, dependents=dependents, drained=False)
            swapped = True  # even if another reload has replaced it already
        finally:  # it may have been cancelled after the swap
            for one in group:
                name = one.record.name
                if swapped or one.record.plugin is one.imported.plugin:
                    self._imports.keep(name, one.imported)
                    continue
                self._imports.drop(one.imported)
                if self._imports.snapshots.get(name) is one.snapshot:
                    self._imports.snapshots.pop(name, None)

    def _keep_snapshot(self, one: _Next) -> None:
        """Keep what is replaced, unless an older version that passed its probation is kept."""
        if one.snapshot is not None:
            self._imports.snapshots.setdefault(one.record.name, one.snapshot)

    async def _imported(self, record: PluginRecord, versions: Mapping[str, str]) -> _Next:
        """Import a plugin as its files are now; `versions` are of those that reload with it."""
        return self._checked(record, await self._imports.make_again(record), versions)

    def _checked(
        self, record: PluginRecord, imported: Imported, versions: Mapping[str, str]
    ) -> _Next:
        try:
            plugin = imported.plugin
            if plugin.manifest.name != record.name:
                raise ManifestError(
                    f"its name is {plugin.manifest.name!r} now",
                    plugin=record.name,
                    path=plugin.source,
                    remedy="Reload it by itself, before the plugins that it needs.",
                )
            self._checks.check(plugin, versions)
        except BaseException:
            self._imports.dispose(imported)
            raise
        snapshot = self._imports.snapshot(record) if self._keep_snapshots else None
        if snapshot is not None and imported.loaded is not None:
            changed = differing(snapshot.content, imported.loaded.content)
            snapshot = snapshot if changed else None  # rolling back would change nothing
        return _Next(record, imported, snapshot)

    async def _as_it_was(self, record: PluginRecord, snapshot: Snapshot) -> _Next:
        """Import a plugin as its files were."""
        imported = await self._imports.make(snapshot.source, snapshot.sources)
        loaded: Loaded | None = imported.loaded
        assert loaded is not None
        imported.loaded = msgspec.structs.replace(loaded, content=snapshot.content)
        return _Next(record, imported)

    async def _as_it_is(self, record: PluginRecord, _: Mapping[str, str]) -> _Next:
        """Import a plugin as its files were when it was imported last."""
        snapshot = self._imports.snapshot(record)
        if snapshot is not None:
            return await self._as_it_was(record, snapshot)
        return _Next(record, Imported(record.plugin, self._imports.origin(record)))


def _without_state(plugin: Plugin) -> None:
    """Make a plugin take over no state."""
    real = plugin.life_cycle
    vars(plugin)["life_cycle"] = lambda step: None if step == "import_state" else real(step)

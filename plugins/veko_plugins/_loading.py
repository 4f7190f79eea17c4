"""How the manager loads plugins: resolve, import, order, retry, and dispose what is over.

Each generation is imported anew, so a retry and a reload begin with a clean module. What was
imported for a generation that is no more is disposed as soon as the kernel says so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from veko import Plugin, PluginRecord, Subscription
from veko.errors import DependencyError, LoadError, ManifestError, VekoError

from ._infos import LoadReport
from ._manifests import sound_plugin
from ._sources import Source

if TYPE_CHECKING:
    from .dependencies import Plan
    from .loader import Loaded
    from .manager import Form, PluginManager
    from .validation import Validation

__all__ = ["Loading"]

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 5.0
"""Seconds before the first retry, and the most between two; each wait is twice the one before."""


class Loading:
    """The loading of one run of the manager."""

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager
        self.lock = asyncio.Lock()  # of who saves or restores the whole
        self._origins: dict[str, Form | Source] = {}
        self._running: dict[str, Loaded] = {}
        self._dispose: Callable[[Loaded | None], None] = _nothing
        self._subscriptions: list[Subscription] = []

    def ready(self) -> None:
        """Begin: the core plugins are there. Imports of generations that end are disposed."""
        self._dispose = self._manager.use("loader").dispose
        self._subscriptions = [
            self._manager.bus.on(event, self._dispose_ended, priority=float("-inf"))
            for event in ("plugin:loaded", "plugin:unloaded")
        ]

    def origin(self, name: str) -> Form | Source | None:
        """Return what a loaded plugin was loaded from; `None` if the kernel was given it."""
        return self._origins.get(name)

    async def find(self, name: str) -> Form | Source:
        """Return what a plugin of that name is loaded from.

        Raises:
            NotFoundError: There is none.
        """
        found: Form | Source = await self._manager.use("discovery").resolve(name)
        return found

    @asynccontextmanager
    async def look(self, origin: Form | Source) -> AsyncIterator[Plugin]:
        """Give a plugin as it would be loaded; its module goes again."""
        loaded = await self._import(origin) if isinstance(origin, Source) else None
        try:
            yield _made(origin) if loaded is None else loaded.plugin
        finally:
            self._dispose(loaded)

    async def load(self, plugin: Form | Source, config: Mapping[str, Any] | None) -> PluginRecord:
        """Load one plugin; see `PluginManager.load_plugin`."""
        origin: Form | Source = plugin
        if isinstance(plugin, str | Path):
            origin = await self._manager.use("discovery").resolve(plugin)
        return await self._load(origin, config, None)

    async def load_all(self) -> LoadReport:
        """Load all that is found; see `PluginManager.load_all_plugins`."""
        manager, report = self._manager, LoadReport()
        found = manager.use("discovery").scan()
        for problem in found.problems:
            taken = problem.name in report.failed or any(
                problem.name == s.name for s in found.sources
            )
            await self._failed(report, str(problem.path) if taken else problem.name, problem.error)
        sources: dict[str, tuple[Source, Loaded | None]] = {}
        manifests: list[Any] = []
        for source in found.sources:
            described: Any = source.outline
            ahead: Loaded | None = None
            if described is None:  # only running it tells what it is
                try:
                    ahead = await self._import(source)
                except Exception as error:
                    await self._failed(report, source.name, error)
                    continue
                described = ahead.plugin.manifest
            known = manager.kernel.get(described.name)
            if known is not None and known.loaded and not known.core:
                self._dispose(ahead)
            elif described.name in sources:
                self._dispose(ahead)
                await self._failed(report, str(source.path), _twice(described.name, source))
            else:
                sources[described.name] = source, ahead
                manifests.append(described)
        active = {r.name: r.version for r in manager.kernel.records() if r.active}
        failed = dict.fromkeys(report.failed, "failed to load")
        plan: Plan = manager.use("dependencies").plan(manifests, active, failed=failed)
        for name, fault in plan.faults.items():
            source, ahead = sources[name]
            self._dispose(ahead)
            fault.path = fault.path or source.path
            await self._failed(report, name, self._complete(fault, source))
        async with anyio.create_task_group() as group:
            self._start_ready(group, plan, sources, report)
        for name, skipped in plan.skipped.items():
            report.skipped[name] = str(skipped)
            self._dispose(sources[name][1])
        manager.use("discovery").forget()
        return report

    def _complete(self, fault: DependencyError, source: Source) -> VekoError:
        """Say what else is wrong with a plugin that cannot be put in order."""
        validation = self._validation()
        if validation is None or source.outline is None:
            return fault
        return validation.complete(fault, source.outline.fields)

    def _start_ready(
        self,
        group: anyio.abc.TaskGroup,
        plan: Plan,
        sources: Mapping[str, tuple[Source, Loaded | None]],
        report: LoadReport,
    ) -> None:
        async def one(name: str) -> None:
            source, ahead = sources[name]
            try:
                await self._load(source, None, ahead)
            except Exception as error:
                report.failed[name] = error
                plan.failed(name)
            else:
                report.loaded.append(name)
                plan.done(name)
            self._start_ready(group, plan, sources, report)

        for name in plan.ready():
            group.start_soon(one, name)

    async def _load(
        self, origin: Form | Source, config: Mapping[str, Any] | None, ahead: Loaded | None
    ) -> PluginRecord:
        manager = self._manager
        retries, wait = manager.options.max_retries, FIRST_WAIT
        while True:
            loaded, ahead = ahead, None
            if loaded is None and isinstance(origin, Source):
                try:
                    loaded = await self._import(origin)
                except Exception as error:
                    await manager.bus.report(error, owner=origin.name, handler="import")
                    raise
            plugin = _made(origin) if loaded is None else loaded.plugin
            name = plugin.manifest.name
            try:
                await self._checked(plugin)
                given = manager.use("config").section(name, config)
                record = await manager.kernel.load(plugin, given, retried=retries > 0)
            except LoadError as error:
                self._dispose(loaded)
                if error.step not in ("load", "activate") or not retries:
                    raise
            except BaseException:
                self._dispose(loaded)
                raise
            else:
                self._keep(name, origin, loaded)
                return record
            retries -= 1
            await anyio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, LONGEST_WAIT)

    async def reload(self, name: str, config: Mapping[str, Any] | None) -> PluginRecord:
        """Give a plugin a new generation; see `PluginManager.reload_plugin`."""
        manager = self._manager
        record = manager.kernel.get(name)
        assert record is not None
        origin = self._origins.get(name, record.plugin)  # the kernel may have been given it
        loaded: Loaded | None = None
        try:
            if isinstance(origin, Source):
                if origin.path is not None:  # what plugin.toml says may have changed too
                    origin = manager.use("discovery").find(origin.path)
                loaded = await self._import(origin)
            plugin = _made(origin) if loaded is None else loaded.plugin
            if plugin.manifest.name != name:
                raise ManifestError(
                    f"it calls itself {plugin.manifest.name!r} now",
                    plugin=name,
                    path=plugin.source,
                    remedy="Unload it and load it under its new name.",
                )
            self._check(plugin)
        except Exception as error:
            self._dispose(loaded)
            await manager.bus.report(error, owner=manager.kernel.get(name), handler="reload")
            raise
        try:
            record = await manager.kernel.reload(plugin, config)
        except BaseException:
            self._dispose(loaded)
            raise
        self._keep(name, origin, loaded)
        return record

    def _keep(self, name: str, origin: Form | Source, loaded: Loaded | None) -> None:
        self._origins[name] = origin
        before = self._running.pop(name, None)
        if before is not loaded:
            self._dispose(before)
        if loaded is not None:
            self._running[name] = loaded
        self._dispose_ended(name)  # it may have unloaded itself meanwhile

    async def _checked(self, plugin: Plugin) -> None:
        try:
            self._check(plugin)
        except VekoError as error:
            await self._manager.bus.report(error, owner=plugin.manifest.name, handler="load")
            raise

    def _check(self, plugin: Plugin) -> None:
        """Check what is not the kernel's business: values, versions, what is installed.

        Raises:
            VekoError: See `Validation.check`.
        """
        validation = self._validation()
        if validation is not None:
            validation.check(plugin)

    def _validation(self) -> Validation | None:
        """The service `validation`, if it is wanted and was not left out."""
        manager = self._manager
        if not manager.options.enable_validation:
            return None
        entry = manager.kernel.registry.get("service", "validation")
        return None if entry is None else entry.value

    async def _import(self, source: Source) -> Loaded:
        loaded: Loaded = await self._manager.use("loader").import_source(source)
        return loaded

    async def _failed(self, report: LoadReport, name: str, error: Exception) -> None:
        report.failed[name] = error
        await self._manager.bus.report(error, owner=name, handler="load")

    def _dispose_ended(self, name: str) -> None:
        loaded, record = self._running.get(name), self._manager.kernel.get(name)
        if loaded is not None and (record is None or record.plugin is not loaded.plugin):
            del self._running[name]
            self._dispose(loaded)
        if record is None:
            self._origins.pop(name, None)  # a plugin given as an object would not die

    def dispose_all(self) -> None:
        """Dispose whatever is left; the manager stops."""
        while self._subscriptions:
            self._subscriptions.pop().cancel()
        while self._running:
            self._dispose(self._running.popitem()[1])
        self._origins.clear()


def _nothing(loaded: Loaded | None) -> None:
    """Nothing was imported yet."""


def _made(origin: Form | Source) -> Plugin:
    if isinstance(origin, Plugin) and hasattr(origin, "manifest"):
        return origin
    return sound_plugin(origin)


def _twice(name: str, source: Source) -> ManifestError:
    return ManifestError(
        f"a plugin {name!r} was found already",
        plugin=name,
        path=source.path,
        remedy="Rename one of the two.",
    )

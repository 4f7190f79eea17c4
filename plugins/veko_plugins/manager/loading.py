"""How the manager loads plugins: resolve, import, order, retry.

Each generation is imported anew, so a retry and a reload (`_reloading`) begin with a clean module.
What was imported for a generation that is no more is disposed as soon as the kernel says so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from veko import Kernel, Plugin, PluginRecord, Subscription
from veko.errors import DependencyError, LoadError, ManifestError, VekoError

from .._lib.manifests import checked_plugin
from .._source.content import Content
from .._source.source import Form, Source
from ..reports import LoadReport
from .origins import Generations
from .reloading import Reloading

if TYPE_CHECKING:
    from ..dependencies import Plan
    from ..loader import Loaded
    from ..options import Options
    from ..validation import Validation

__all__ = ["Loading"]

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 5.0
"""Seconds before the first retry, and the most between two; each wait is twice the one before."""


class Loading:
    """The loading of one run of the manager.

    Attributes:
        lock: Held by who saves or restores the whole.
        generations: What the loaded plugins run on.
        reloading: How they are given the next.
    """

    def __init__(self, kernel: Kernel, options: Options) -> None:
        self._kernel = kernel
        self._options = options
        self.lock = asyncio.Lock()
        self.generations = Generations(kernel, _nothing)
        self.reloading = Reloading(kernel, options, self.generations, self._check, _made)
        self._subscriptions: list[Subscription] = []

    def ready(self) -> None:
        """Begin: the core plugins are there. Imports of generations that end are disposed."""
        self.generations.dispose = self._kernel.use("loader").dispose
        last = float("-inf")
        self._subscriptions = [
            self._kernel.bus.on("plugin:retired", self.generations.retired, priority=last),
            self._kernel.bus.on("plugin:unloaded", self._unloaded, priority=last),
        ]

    def _unloaded(self, name: str) -> None:
        record = self._kernel.get(name)
        if record is None or not record.loaded:  # else it was loaded anew meanwhile
            self.reloading.forget(name)
            self.generations.unloaded(name)

    def origin(self, name: str) -> Form | Source | None:
        """Return what a loaded plugin was loaded from; `None` if the kernel was given it."""
        found: Form | Source | None = self.generations.origin(name)
        return found

    def loaded(self, name: str) -> Loaded | None:
        """Return the import that a loaded plugin runs; `None` if it was not imported from files."""
        return self.generations.loaded(name)

    def relocate(self, name: str, origin: Form | Source) -> None:
        """Let the next reload of a plugin be from elsewhere."""
        self.generations.relocate(name, origin)

    def places(self) -> dict[Path, str]:
        """Return the files and folders that plugins run from, with their names."""
        return self.generations.places()

    def content(self, name: str) -> Content | None:
        """Return what the files of a loaded plugin held; `None` if it is of no file."""
        loaded = self.generations.loaded(name)
        return None if loaded is None else loaded.content

    def rejected(self, name: str) -> Content | None:
        """Return what they held when it was taken back last, if it was."""
        return self.reloading.rejected.get(name)

    def on_probation(self, name: str) -> bool:
        """Tell whether there is something to go back to."""
        return name in self.reloading.former

    def acquit(self, name: str) -> None:
        """Let go of what there is to go back to."""
        self.reloading.former.pop(name, None)

    async def take_back(self, name: str) -> PluginRecord:
        """Give a plugin a generation of what it was before its probation."""
        return await self.reloading.take_back(name)

    async def find(self, name: str) -> Form | Source:
        """Return what a plugin of that name is loaded from.

        Raises:
            NotFoundError: There is none.
        """
        found: Form | Source = await self._kernel.use("discovery").resolve(name)
        return found

    @asynccontextmanager
    async def look(self, origin: Form | Source) -> AsyncIterator[Plugin]:
        """Give a plugin as it would be loaded; its module goes again."""
        loaded = await self._import(origin) if isinstance(origin, Source) else None
        try:
            yield _made(origin) if loaded is None else loaded.plugin
        finally:
            self.generations.dispose(loaded)

    async def load(self, plugin: Form | Source, config: Mapping[str, Any] | None) -> PluginRecord:
        """Load one plugin; see `PluginManager.load_plugin`."""
        origin: Form | Source = plugin
        if isinstance(plugin, str | Path):
            origin = await self._kernel.use("discovery").resolve(plugin)
        return await self._load(origin, config)

    async def load_all(
        self, among: Collection[Path] | None = None, *, retries: int | None = None
    ) -> LoadReport:
        """Load all that is found; see `PluginManager.load_all_plugins`.

        Args:
            among: Only what lies in these files and folders.
            retries: How often a `load()` that fails is tried again; as the options say if left
                out.
        """
        kernel, report = self._kernel, LoadReport()
        found = kernel.use("discovery").scan()
        for problem in found.problems:
            if among is not None and problem.path not in among:
                continue
            taken = problem.name in report.failed or any(
                problem.name == s.name for s in found.sources
            )
            await self._failed(report, str(problem.path) if taken else problem.name, problem.error)
        sources: dict[str, tuple[Source, Loaded | None]] = {}
        manifests: list[Any] = []
        for source in found.sources:
            if among is not None and source.path not in among:
                continue
            described: Any = source.outline
            ahead: Loaded | None = None
            if described is None:  # only running it tells what it is
                try:
                    ahead = await self._import(source)
                except Exception as error:
                    await self._failed(report, source.name, error)
                    continue
                described = ahead.plugin.manifest
            known = kernel.get(described.name)
            if known is not None and known.loaded and not known.core:
                self.generations.dispose(ahead)
            elif described.name in sources:
                self.generations.dispose(ahead)
                await self._failed(report, str(source.path), _twice(described.name, source))
            else:
                sources[described.name] = source, ahead
                manifests.append(described)
        active = {r.name: r.version for r in kernel.records() if r.active}
        failed = dict.fromkeys(report.failed, "failed to load")
        plan: Plan = kernel.use("dependencies").plan(manifests, active, failed=failed)
        for name, fault in plan.faults.items():
            source, ahead = sources[name]
            self.generations.dispose(ahead)
            fault.path = fault.path or source.path
            await self._failed(report, name, self._complete(fault, source))
        async with anyio.create_task_group() as group:
            self._start_ready(group, plan, sources, report, retries)
        for name, skipped in plan.skipped.items():
            report.skipped[name] = str(skipped)
            self.generations.dispose(sources[name][1])
        kernel.use("discovery").forget()
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
        retries: int | None,
    ) -> None:
        async def one(name: str) -> None:
            source, ahead = sources[name]
            try:
                await self._load(source, None, ahead, retries)
            except Exception as error:
                report.failed[name] = error
                plan.failed(name)
            else:
                report.loaded.append(name)
                plan.done(name)
            self._start_ready(group, plan, sources, report, retries)

        for name in plan.ready():
            group.start_soon(one, name)

    async def _load(
        self,
        origin: Form | Source,
        config: Mapping[str, Any] | None,
        ahead: Loaded | None = None,
        retries: int | None = None,
    ) -> PluginRecord:
        kernel, generations = self._kernel, self.generations
        left = self._options.max_retries if retries is None else retries
        wait = FIRST_WAIT
        while True:
            loaded, ahead = ahead, None
            if loaded is None and isinstance(origin, Source):
                try:
                    loaded = await self._import(origin)
                except Exception as error:
                    await kernel.bus.report(error, owner=origin.name, handler="import")
                    raise
            plugin = _made(origin) if loaded is None else loaded.plugin
            name = plugin.manifest.name
            try:
                await self._checked(plugin)
                given = kernel.use("config").section(name, config)
                record = await kernel.load(plugin, given, retried=left > 0)
            except LoadError as error:
                generations.drop(name, loaded)
                if error.step not in ("load", "activate") or not left:
                    raise
            except BaseException:
                generations.drop(name, loaded)
                raise
            else:
                self.reloading.forget(name)
                generations.keep(name, origin, loaded)
                return record
            left -= 1
            await anyio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, LONGEST_WAIT)

    async def reload(
        self, name: str, config: Mapping[str, Any] | None, *, drained: bool = True
    ) -> PluginRecord:
        """Give a plugin a new generation; see `PluginManager.reload_plugin`.

        Args:
            name: The plugin's name.
            config: Merged over the configuration that it has.
            drained: Whether to wait for the calls that still run in the old one.
        """
        return await self.reloading.reload(name, config, drained=drained)

    async def _checked(self, plugin: Plugin) -> None:
        try:
            self._check(plugin)
        except VekoError as error:
            await self._kernel.bus.report(error, owner=plugin.manifest.name, handler="load")
            raise

    def _check(self, plugin: Plugin, versions: Mapping[str, str] | None = None) -> None:
        """Check what is not the kernel's business: values, versions, what is installed.

        Raises:
            VekoError: See `Validation.check`.
        """
        validation = self._validation()
        if validation is not None:
            validation.check(plugin, versions)

    def _validation(self) -> Validation | None:
        """The service `validation`, if it is wanted and was not left out."""
        if not self._options.enable_validation:
            return None
        entry = self._kernel.registry.get("service", "validation")
        return None if entry is None else entry.value

    async def _import(self, source: Source) -> Loaded:
        loaded: Loaded = await self._kernel.use("loader").import_source(source)
        return loaded

    async def _failed(self, report: LoadReport, name: str, error: Exception) -> None:
        report.failed[name] = error
        await self._kernel.bus.report(error, owner=name, handler="load")

    def dispose_all(self) -> None:
        """Dispose whatever is left; the manager stops."""
        while self._subscriptions:
            self._subscriptions.pop().cancel()
        self.generations.dispose_all()


def _nothing(loaded: Loaded | None) -> None:
    """Nothing was imported yet."""


def _made(origin: Form | Source) -> Plugin:
    if isinstance(origin, Plugin) and hasattr(origin, "manifest"):
        return origin
    return checked_plugin(origin)


def _twice(name: str, source: Source) -> ManifestError:
    return ManifestError(
        f"a plugin {name!r} was found already",
        plugin=name,
        path=source.path,
        remedy="Rename one of the two.",
    )

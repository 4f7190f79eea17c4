"""The core plugin `loading`: the service that loads and reloads the application's plugins.

Each generation is a fresh import, so a retry and a reload start with a clean module.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from veko import Context, Plugin, PluginRecord
from veko.errors import LoadError, TimeLimitError, VekoError

from .._saved.plugins import Exactly
from .._source.bytecode import MAX_SOURCE
from .._source.content import Content
from .._source.source import Form, Kept, Source
from ..reports import LoadReport
from .imports import Imported, Imports, Snapshot
from .kept import kept_plugins
from .load_all import LoadAll
from .plugin_checks import PluginChecks
from .records import get_loaded
from .reloading import Around, Reloading
from .slow_steps import SlowSteps

if TYPE_CHECKING:
    from ..config import Config

__all__ = ["Loading"]

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 5.0
"""Seconds before the first retry, and the most between two; each wait is twice the one before."""


class Loading(Plugin):
    """The service `loading`; core plugins get it with `context.use("loading")`.

    Args:
        max_retries: How often a `load()` that failed is tried again.
        probation: Whether new generations are on probation.
        validate: Whether the service `validation` checks plugins before they load.
        max_source: The largest source that is read, in bytes.

    Attributes:
        lock: Held while the whole application is saved or restored.
        max_source: The largest source that is read, in bytes.
        report: What the last `load_all` of everything that is found did.
    """

    name = "loading"
    version = "2.0.0"
    description = "Loads and reloads plugins, with retries, and rolls them back."
    core = True

    lock: asyncio.Lock
    report: LoadReport
    _context: Context
    _imports: Imports
    _checks: PluginChecks
    _reloading: Reloading
    _slow: SlowSteps

    def __init__(
        self,
        *,
        max_retries: int = 3,
        probation: bool = False,
        validate: bool = True,
        max_source: int = MAX_SOURCE,
    ) -> None:
        self.max_source = max_source
        self._max_retries = max_retries
        self._probation = probation
        self._validate = validate

    def load(self, context: Context) -> None:
        """Provide the service, and follow which generations end.

        Raises:
            ServiceError: There is no loader.
        """
        self._context = context
        self.lock = asyncio.Lock()
        self.report = LoadReport()
        self._slow = SlowSteps()
        self._imports = Imports(context, self._slow)
        self._checks = PluginChecks(context.kernel, self._validate)
        self._reloading = Reloading(context, self._imports, self._checks, self._probation)
        context.provide("loading", self)
        self._slow.start()
        context.intercept_step(self._slow.around)
        last = float("-inf")  # other handlers may still look at the module
        context.hook("plugin:retired", self._imports.retired, priority=last)
        context.hook("plugin:unloaded", self._unloaded, priority=last)

    def unload(self) -> None:
        """Dispose of the imports that are left; the application's plugins are unloaded."""
        self._imports.dispose_all()
        self._slow.stop()

    def _unloaded(self, name: str) -> None:
        record = self._context.kernel.get(name)
        if record is None or not record.loaded:  # else it was loaded again meanwhile
            self._imports.unloaded(name)

    # -- loading

    async def load_plugin(
        self, plugin: Form | Source, config: Mapping[str, Any] | None = None
    ) -> PluginRecord:
        """Load one plugin; see `PluginManager.load_plugin`."""
        origin = await self.find(plugin) if isinstance(plugin, str | Path) else plugin
        return await self._load(origin, config, None, self._max_retries)

    async def load_all(
        self,
        among: Collection[Path] | None = None,
        *,
        retries: int | None = None,
        kept: Mapping[str, Kept] | None = None,
    ) -> LoadReport:
        """Load all plugins that are found; see `PluginManager.load_all_plugins`.

        Args:
            among: Load only what lies in these files and folders.
            retries: How often a `load()` that failed is tried again; `max_retries` if left out.
            kept: Plugins to load as they were, by name; also those that are not found.
        """
        left = self._max_retries if retries is None else retries
        before = kept or {}

        async def load(name: str, imported: Imported | None, origin: Form | Source) -> None:
            config = Exactly(before[name].config) if name in before else None
            await self._load(origin, config, imported, left)

        run = LoadAll(self._context, self._imports, self._checks, load, self._make)
        report = await run.run(among, {name: one.origin for name, one in before.items()})
        if among is None:
            self.report = report
        return report

    def kept(self) -> dict[str, Kept]:
        """Return the loaded plugins by name, to be loaded again as they are now."""
        return kept_plugins(self._context, self._imports.origin)

    async def _load(
        self,
        origin: Form | Source,
        config: Mapping[str, Any] | None,
        imported: Imported | None,
        retries: int,
    ) -> PluginRecord:
        kernel, imports, wait = self._context.kernel, self._imports, FIRST_WAIT
        while True:
            made = imported or await self._make(origin)
            imported = None
            name = made.plugin.manifest.name
            try:
                await self._check(made.plugin)
                settings: Config = self._context.use("config")
                given = settings.section(name, config, manifest=made.plugin.manifest)
                again = _may_pass if retries else None
                with imports.coming(made):
                    record = await kernel.load(made.plugin, given, again=again)
            except BaseException as error:
                imports.drop(made)
                if not retries or not _may_pass(error):
                    raise
            else:
                imports.forget_former(name)
                imports.keep(name, made)
                return record
            retries -= 1
            await anyio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, LONGEST_WAIT)

    async def _make(self, origin: Form | Source) -> Imported:
        try:
            return await self._imports.make(origin)
        except Exception as error:
            if isinstance(origin, Source):
                bus = self._context.kernel.bus
                await bus.report(error, owner=origin.name, handler="import")
            raise

    async def _check(self, plugin: Plugin) -> None:
        try:
            self._checks.check(plugin)
        except VekoError as error:
            bus = self._context.kernel.bus
            await bus.report(error, owner=plugin.manifest.name, handler="load")
            raise

    # -- reloading

    async def reload_plugin(
        self,
        name: str,
        config: Mapping[str, Any] | None = None,
        *,
        drained: bool = True,
        around: Around | None = None,
    ) -> PluginRecord:
        """Give a plugin a new generation; see `PluginManager.reload_plugin`.

        Args:
            name: The plugin's name.
            config: Merged over its present configuration.
            drained: Whether to wait for the calls that still run in the old generation.
            around: Makes of the next version a context manager, within which it loads.
        """
        return await self._reloading.reload(name, config, drained=drained, around=around)

    async def roll_back(self, name: str) -> PluginRecord:
        """Give a plugin a generation of what it was before its probation.

        Raises:
            NotFoundError: It is not on probation.
            VekoError: What it was cannot be loaded any more; it stays as it is.
        """
        return await self._reloading.roll_back(name)

    def snapshot(self, name: str) -> object | None:
        """Return what a loaded plugin runs on, for `go_back`; `None` if it came from no file."""
        record = self._context.kernel.get(name)
        return None if record is None else self._imports.snapshot(record)

    async def go_back(self, name: str, snapshot: object) -> PluginRecord:
        """Give a plugin a generation of what it was when the snapshot was taken.

        Args:
            name: The plugin's name.
            snapshot: What `snapshot` returned.

        Raises:
            NotFoundError: It is not loaded.
            VekoError: What it was cannot be loaded any more; it stays as it is.
        """
        record = get_loaded(self._context.kernel, name)
        assert isinstance(snapshot, Snapshot)
        await self._reloading.go_back(record, snapshot)
        return record

    def check(self, plugin: Plugin) -> None:
        """Check what is checked before a plugin loads; see `Validation.check`.

        Raises:
            VekoError: It cannot be loaded here.
        """
        self._checks.check(plugin)

    def can_roll_back(self, name: str) -> bool:
        """Return whether a snapshot of what a plugin was before is kept."""
        return name in self._imports.snapshots

    def end_probation(self, name: str) -> None:
        """Forget what a plugin was before: it has passed its probation."""
        self._imports.snapshots.pop(name, None)

    # -- what is loaded, and from where

    async def find(self, wanted: str | Path) -> Form | Source:
        """Return what a plugin of that name, or at that path, is loaded from.

        Raises:
            NotFoundError: There is none.
        """
        return await self._imports.discovery.resolve(wanted)

    @asynccontextmanager
    async def preview(self, origin: Form | Source) -> AsyncIterator[Plugin]:
        """Import a plugin without loading it; its module is disposed of at the end."""
        imported = await self._imports.make(origin)
        try:
            yield imported.plugin
        finally:
            self._imports.dispose(imported)

    def origin(self, name: str) -> Form | Source | None:
        """Return what a plugin was loaded from; `None` if the kernel was given it directly."""
        current = self._imports.current(name)
        return None if current is None else current.origin

    def relocate(self, name: str, origin: Form | Source) -> None:
        """Make the next reload of a plugin import it from elsewhere."""
        current = self._imports.current(name)
        if current is not None:
            current.origin = origin

    def locations(self) -> dict[Path, str]:
        """Return the files and folders that plugins run from, with the plugins' names."""
        return self._imports.locations()

    def content(self, name: str) -> Content | None:
        """Return the digests of a loaded plugin's files; `None` if it came from no file."""
        current = self._imports.current(name)
        return None if current is None or current.loaded is None else current.loaded.content

    def rejected(self, name: str) -> Content | None:
        """Return the digests of the version that was rolled back last, if any was."""
        return self._imports.rejected.get(name)


def _may_pass(error: BaseException) -> bool:
    """Return whether the next try may succeed: a bad manifest or a taken name stays what it is.

    A step that exceeded its time limit is not tried again: it would hold up the start for as long
    once more.
    """
    if isinstance(error, TimeLimitError) or not isinstance(error, LoadError):
        return False
    return error.step in ("load", "activate")

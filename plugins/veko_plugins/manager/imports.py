"""What the loaded plugins were made from: their origins and imports, by name.

Promise: an import is disposed of as soon as no generation runs on it. A snapshot to roll back to
holds sources only, no module.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from veko import Context, Plugin, PluginRecord

from .._lib.manifests import checked_plugin
from .._saved.plugins import given_config
from .._source.content import Content
from .._source.source import Form, Source
from .slow_steps import SlowSteps

if TYPE_CHECKING:
    from ..discovery import Discovery
    from ..loader import Loaded, Loader

__all__ = ["Imported", "Imports", "Snapshot"]


class Imported(msgspec.Struct):
    """A plugin as it was made from its origin.

    Attributes:
        plugin: The plugin.
        origin: What it was made from; a reload makes the next generation from it.
        loaded: Its import; `None` if it was given as an object, or the import is disposed of.
    """

    plugin: Plugin
    origin: Form | Source
    loaded: Loaded | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """A plugin before a reload, with all that importing it again takes.

    Attributes:
        source: What it was imported from.
        sources: What its source files held.
        content: The digests of its files; see `_source.content`.
        given: What it was configured with.
        version: Its version.
    """

    source: Source
    sources: Mapping[str, bytes]
    content: Content
    given: dict[str, Any]
    version: str


class Imports:
    """Makes plugins from their origins, and remembers what each loaded plugin runs on.

    Args:
        context: The context of the core plugin `loading`.
        slow: Names imports that take long.

    Attributes:
        snapshots: What plugins on probation were before, by name.
        rejected: The digests of the files of rolled-back plugins, by name.

    Raises:
        ServiceError: There is no loader.
    """

    def __init__(self, context: Context, slow: SlowSteps) -> None:
        self._context = context
        self._slow = slow
        self._kernel = context.kernel
        self._loader: Loader = context.use("loader")
        self._current: dict[str, Imported] = {}
        self._coming: list[Imported] = []
        self._retiring: list[Loaded] = []  # calls may still run in them
        self.snapshots: dict[str, Snapshot] = {}
        self.rejected: dict[str, Content] = {}

    async def make(
        self, origin: Form | Source, sources: Mapping[str, bytes] | None = None
    ) -> Imported:
        """Make a plugin; a source is imported as a new generation.

        Args:
            origin: A source, or the plugin in any form.
            sources: The contents of the source files, if they are not to be read from disk.

        Raises:
            VekoError: It cannot be imported, or is no valid plugin. Nothing stays imported.
        """
        if isinstance(origin, Source):
            with self._slow.watching("its import", origin.name, origin.path):
                loaded = await self._loader.import_source(origin, sources)
            return Imported(loaded.plugin, origin, loaded)
        if isinstance(origin, Plugin) and hasattr(origin, "manifest"):
            return Imported(origin, origin)
        return Imported(checked_plugin(origin), origin)

    async def make_again(self, record: PluginRecord) -> Imported:
        """Make a loaded plugin once more, of what its files hold now."""
        origin = self.origin(record)
        if isinstance(origin, Source) and origin.path is not None:
            origin = self.discovery.find(origin.path)  # plugin.toml may have changed too
        return await self.make(origin)

    @functools.cached_property
    def discovery(self) -> Discovery:
        """The service `discovery`, which may be left out where plugins are given as objects."""
        discovery: Discovery = self._context.use("discovery")
        return discovery

    def origin(self, record: PluginRecord) -> Form | Source:
        """Return what a loaded plugin was made from."""
        for coming in self._coming:
            if coming.plugin is record.plugin:
                # It is live, and `load` has not returned yet: a reload at this moment would give
                # it another generation of the same module. Held by
                # test_a_reload_while_load_has_not_returned_imports_the_source.
                self.keep(record.name, coming)
        current = self._current.get(record.name)
        return record.plugin if current is None else current.origin

    @contextmanager
    def coming(self, imported: Imported) -> Iterator[None]:
        """Say that the kernel loads a plugin from this import meanwhile."""
        self._coming.append(imported)
        try:
            yield
        finally:
            self._coming.remove(imported)

    def current(self, name: str) -> Imported | None:
        """Return what a loaded plugin runs on; `None` if the kernel was given it directly."""
        return self._current.get(name)

    def locations(self) -> dict[Path, str]:
        """Return the files and folders that plugins run from, with the plugins' names."""
        return {
            one.origin.path: name
            for name, one in self._current.items()
            if isinstance(one.origin, Source) and one.origin.path is not None
        }

    def snapshot(self, record: PluginRecord) -> Snapshot | None:
        """Return a plugin as it is now, to roll back to; `None` if it came from no file."""
        current = self._current.get(record.name)
        loaded = current.loaded if current is not None else None
        sources = loaded.sources if loaded is not None else None
        if loaded is None or sources is None:
            return None
        return Snapshot(
            loaded.source, sources, loaded.content, given_config(record), record.version
        )

    def keep(self, name: str, imported: Imported) -> None:
        """Note what a plugin runs on from now on; the former import goes when it has retired."""
        before = self._current.get(name)
        former = before.loaded if before is not None else None
        if former is not None and former is not imported.loaded:
            self._retiring.append(former)
        self._current[name] = imported
        if self._kernel.get(name) is None:  # it has unloaded itself meanwhile
            self.unloaded(name)

    def drop(self, imported: Imported) -> None:
        """Dispose of an import that failed to load, unless the plugin runs on it after all."""
        name = imported.plugin.manifest.name
        record = self._kernel.get(name)
        if record is None or not record.loaded or record.plugin is not imported.plugin:
            self.dispose(imported)
        else:
            # Cancelled when it was live already. Held by
            # test_a_load_that_is_cancelled_when_it_is_live_can_be_reloaded.
            self.keep(name, imported)

    def retired(self, name: str, record: PluginRecord, plugin: Plugin) -> None:
        """Dispose of the import of a generation that has ended."""
        current = self._current.get(name)
        if (
            current is not None
            and current.plugin is plugin
            and record.plugin is not plugin  # else it was loaded from the same object again
        ):
            self.dispose(current)
        for loaded in tuple(self._retiring):
            if loaded.plugin is plugin:
                self._retiring.remove(loaded)
                self._loader.dispose(loaded)

    def forget_former(self, name: str) -> None:
        """Forget what a plugin was before: it was loaded from scratch, or unloaded."""
        self.snapshots.pop(name, None)
        self.rejected.pop(name, None)

    def unloaded(self, name: str) -> None:
        """Dispose of the import of a plugin that was unloaded, and forget what it was before."""
        self.forget_former(name)
        current = self._current.pop(name, None)
        if current is not None:
            self.dispose(current)

    def dispose(self, imported: Imported) -> None:
        """Dispose of an import that no generation runs on; twice is fine."""
        loaded, imported.loaded = imported.loaded, None
        if loaded is not None:
            self._loader.dispose(loaded)

    def dispose_all(self) -> None:
        """Dispose of all that is left; the manager stops."""
        while self._retiring:
            self._loader.dispose(self._retiring.pop())
        while self._current:
            self.dispose(self._current.popitem()[1])

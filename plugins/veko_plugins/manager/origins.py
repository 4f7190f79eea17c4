"""What the loaded plugins run on: origins, imports, and what they were before.

Promise: an import is disposed as soon as no generation runs on it; of what is kept to go back to
only the sources stay, no module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from veko import Kernel, Plugin, PluginRecord

from .._saved.plugins import given_of
from .._source.content import Content
from .._source.source import Source

if TYPE_CHECKING:
    from ..loader import Loaded

__all__ = ["Former", "Generations"]


class Former(msgspec.Struct, frozen=True):
    """What a plugin was before it was reloaded; enough to import it as it was.

    Attributes:
        source: What it was imported from.
        sources: What its source files held.
        content: What its files held; see `_content`.
        given: What it was configured with.
        version: Its version.
    """

    source: Source
    sources: Mapping[str, bytes]
    content: Content
    given: dict[str, Any]
    version: str


class Run(msgspec.Struct):
    """What a loaded plugin runs on."""

    origin: Any
    loaded: Loaded | None


class Generations:
    """What the plugins of a kernel run on, by name."""

    def __init__(self, kernel: Kernel, dispose: Callable[[Loaded | None], None]) -> None:
        self._kernel = kernel
        self._runs: dict[str, Run] = {}
        self._leaving: list[Loaded] = []  # calls may still run in them
        self.dispose = dispose

    def origin(self, name: str) -> Any:
        """Return what a plugin was loaded from; `None` if the kernel was given it."""
        run = self._runs.get(name)
        return None if run is None else run.origin

    def relocate(self, name: str, origin: Any) -> None:
        """Let the next reload of a plugin be from elsewhere."""
        if name in self._runs:
            self._runs[name].origin = origin

    def loaded(self, name: str) -> Loaded | None:
        """Return the import that a plugin runs; `None` if it was not imported from files."""
        run = self._runs.get(name)
        return None if run is None else run.loaded

    def places(self) -> dict[Path, str]:
        """Return the files and folders that plugins run from, with their names."""
        return {
            run.origin.path: name
            for name, run in self._runs.items()
            if isinstance(run.origin, Source) and run.origin.path is not None
        }

    def former(self, name: str) -> Former | None:
        """Return what a plugin is now, to go back to; `None` if it was imported from no file."""
        loaded, record = self.loaded(name), self._kernel.get(name)
        if loaded is None or loaded.generation is None or record is None:
            return None
        sources = loaded.generation.sources
        return Former(loaded.source, sources, loaded.content, given_of(record), record.version)

    def keep(self, name: str, origin: Any, loaded: Loaded | None) -> None:
        """Note what a plugin runs on from now on; what it ran on leaves when it is retired."""
        before = self.loaded(name)
        if before is not None and before is not loaded:
            self._leaving.append(before)
        self._runs[name] = Run(origin, loaded)
        if self._kernel.get(name) is None:  # it has unloaded itself meanwhile
            self.unloaded(name)

    def drop(self, name: str, loaded: Loaded | None) -> None:
        """Dispose an import that failed to load, unless the plugin runs on it after all."""
        record = self._kernel.get(name)
        if (
            loaded is None
            or record is None
            or not record.loaded
            or record.plugin is not loaded.plugin
        ):
            self.dispose(loaded)

    def retired(self, name: str, record: PluginRecord, plugin: Plugin) -> None:
        """Dispose what a generation ran on that is over."""
        run = self._runs.get(name)
        if (
            run is not None
            and run.loaded is not None
            and run.loaded.plugin is plugin
            and record.plugin is not plugin  # else it was loaded from the same object again
        ):
            self.dispose(run.loaded)
            run.loaded = None
        for loaded in [one for one in self._leaving if one.plugin is plugin]:
            self._leaving.remove(loaded)
            self.dispose(loaded)

    def unloaded(self, name: str) -> None:
        """Dispose what a plugin ran on that is no more."""
        run = self._runs.pop(name, None)
        if run is not None:
            self.dispose(run.loaded)

    def dispose_all(self) -> None:
        """Dispose whatever is left; the manager stops."""
        while self._leaving:
            self.dispose(self._leaving.pop())
        while self._runs:
            self.dispose(self._runs.popitem()[1].loaded)

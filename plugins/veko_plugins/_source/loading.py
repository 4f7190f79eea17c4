"""What the service `loading` can do, for the core plugins that use it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from veko import Plugin, PluginRecord

from ..reports import LoadReport
from .content import Content
from .source import Form, Kept, Source

__all__ = ["Loading"]


class Loading(Protocol):
    """The service `loading`: `loading: Loading = context.use("loading")`.

    A plugin that provides another one does all of this.

    Attributes:
        lock: Held while the whole application is saved or restored, so that nothing sees it half
            restored.
        max_source: The largest source that is read, in bytes.
        report: What the last `load_all` of everything that is found did.
    """

    lock: asyncio.Lock
    max_source: int
    report: LoadReport

    async def load_plugin(
        self, plugin: Form | Source, config: Mapping[str, Any] | None = None
    ) -> PluginRecord:
        """Load one plugin; see `PluginManager.load_plugin`."""
        ...

    async def load_all(
        self,
        among: Collection[Path] | None = None,
        *,
        retries: int | None = None,
        kept: Mapping[str, Kept] | None = None,
    ) -> LoadReport:
        """Load all plugins that are found.

        Args:
            among: Load only what lies in these files and folders.
            retries: How often a `load()` that failed is tried again; as the options say if left
                out.
            kept: Plugins to load as they were, by name; also those that are not found.
        """
        ...

    def kept(self) -> dict[str, Kept]:
        """Return the loaded plugins by name, to be loaded again as they are now."""
        ...

    async def reload_plugin(
        self, name: str, config: Mapping[str, Any] | None = None, *, drained: bool = True
    ) -> PluginRecord:
        """Give a plugin a new generation.

        Args:
            name: The plugin's name.
            config: Merged over its present configuration.
            drained: Whether to wait for the calls that still run in the old generation.
        """
        ...

    async def roll_back(self, name: str) -> PluginRecord:
        """Give a plugin a generation of what it was before its probation.

        Raises:
            NotFoundError: It is not on probation.
            VekoError: What it was cannot be loaded any more; it stays as it is.
        """
        ...

    def snapshot(self, name: str) -> object | None:
        """Return what a loaded plugin runs on, for `go_back`; `None` if it came from no file."""
        ...

    async def go_back(self, name: str, snapshot: object) -> PluginRecord:
        """Give a plugin a generation of what it was when the snapshot was taken.

        Raises:
            NotFoundError: It is not loaded.
            VekoError: What it was cannot be loaded any more; it stays as it is.
        """
        ...

    def check(self, plugin: Plugin) -> None:
        """Check what is checked before a plugin loads.

        Raises:
            VekoError: It cannot be loaded here.
        """
        ...

    def can_roll_back(self, name: str) -> bool:
        """Return whether a snapshot of what a plugin was before is kept."""
        ...

    def end_probation(self, name: str) -> None:
        """Forget what a plugin was before: it has passed its probation."""
        ...

    async def find(self, wanted: str | Path) -> Form | Source:
        """Return what a plugin of that name, or at that path, is loaded from.

        Raises:
            NotFoundError: There is none.
        """
        ...

    def preview(self, origin: Form | Source) -> AbstractAsyncContextManager[Plugin]:
        """Import a plugin without loading it; its module is disposed of at the end."""
        ...

    def origin(self, name: str) -> Form | Source | None:
        """Return what a plugin was loaded from; `None` if the kernel was given it directly."""
        ...

    def relocate(self, name: str, origin: Form | Source) -> None:
        """Make the next reload of a plugin import it from elsewhere."""
        ...

    def locations(self) -> Mapping[Path, str]:
        """Return the files and folders that plugins run from, with the plugins' names."""
        ...

    def content(self, name: str) -> Content | None:
        """Return the digests of a loaded plugin's files; `None` if it came from no file."""
        ...

    def rejected(self, name: str) -> Content | None:
        """Return the digests of the version that was rolled back last, if any was."""
        ...

"""Hot reload: when a plugin's files change, the plugin does.

The `file:*` events name the files that somebody saved; all of one moment that lie in one plugin
make one operation. A plugin whose files hold something else than what runs reloads, with the
plugins that need it. One whose files are gone is unloaded. One that is not loaded, because it is
new or failed before, is loaded. Only the content counts, not whether a file was touched.

Cost: two `stat`s of the settings files a second; a change reads the files of the plugin it is in.
Promise: if a step fails, the old generation keeps running; `plugin:error` and the log say why, and
the next content is tried. A plugin that was unloaded by hand stays unloaded until its file is
created again. Files that are missing for less than `GONE_AFTER`, as while an editor saves, have
changed. A file that is no source and changes more than ten times a minute (a log in a plugin's own
folder) is no longer watched, and the log says so. Settings are read at the start only; the log says
when they have changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from veko import Event, Plugin

from .._source.loading import Loading
from .._source.packages import main_file
from .changes import Changes, Touched
from .settings import watch_settings

if TYPE_CHECKING:
    from veko import Context

__all__ = ["EVENTS", "Reload"]

EVENTS: Final = (
    Event(
        "dev:hotreload",
        str,
        doc="A plugin was loaded or reloaded because its files changed. Arguments: the plugin's "
        "name, the path of the file.",
    ),
)


class Reload(Plugin):
    """The core plugin of hot reload.

    Args:
        folders: The plugin folders.
        load_new: Whether to load plugins that are not loaded.
        settings: Reads the settings files.
        settings_files: The settings files.
    """

    name = "reload"
    version = "2.0.0"
    description = "Reloads plugins whose files change"
    core = True

    _context: Context
    _loading: Loading
    _changes: Changes

    def __init__(
        self,
        folders: Iterable[Path],
        *,
        load_new: bool = True,
        settings: Callable[[], object] = lambda: None,
        settings_files: Iterable[Path] = (),
    ) -> None:
        self._folders = tuple(Path(folder).absolute() for folder in folders)
        self._load_new = load_new
        self._settings = settings
        self._settings_files = tuple(settings_files)
        self._touched: dict[Path, tuple[Path, float]] = {}  # by location: a file of it, and when
        self._woken = anyio.Event()

    def load(self, context: Context) -> None:
        """Hook the events of files and of plugins."""
        self._context = context
        self._loading = context.use("loading")
        for event in EVENTS:
            context.declare(event)
        context.provide("reload", self)
        self._changes = Changes(context, self._load_new, self._touch)
        context.hook("file:add", self._added)
        context.hook("file:change", self._touch)
        context.hook("file:delete", self._touch)
        context.hook("plugin:loaded", self._changes.loaded)
        context.hook("plugin:unloaded", self._changes.unloaded)
        context.spawn(self._run)
        context.spawn(watch_settings, self._settings_files, self._settings, self._settings_changed)

    def _added(self, path: Path) -> None:
        location = self._location_of(path)
        if path in (location, main_file(location)):
            self._changes.added(location)
        self._touch(path)

    def _touch(self, path: Path) -> None:
        self._touched.setdefault(self._location_of(path), (path, time.perf_counter()))
        self._woken.set()

    def _location_of(self, path: Path) -> Path:
        """Return the file or folder of the plugin that a file belongs to, or would belong to."""
        for location in self._loading.locations():
            if path == location or location in path.parents:
                return location
        for folder in self._folders:
            if folder in path.parents:
                return folder / path.relative_to(folder).parts[0]
        return path

    async def _run(self) -> None:
        async with anyio.create_task_group() as group:
            while True:
                await self._woken.wait()
                await anyio.lowlevel.checkpoint()  # files saved together are handled together
                self._woken = anyio.Event()
                touched, self._touched = self._touched, {}
                if touched:
                    group.start_soon(self._handle, touched)

    async def _handle(self, touched: Touched) -> None:
        try:
            await self._changes.handle(touched)
        except Exception as error:  # one bad file must not end reloading for all others
            bus = self._context.kernel.bus
            await bus.report(error, owner=self._context.name, handler="reload")

    def _settings_changed(self) -> None:
        self._context.log("warning", "the settings have changed: restart to apply them")

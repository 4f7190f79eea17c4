"""Hot reload: what happens to the files of plugins happens to the plugins.

The idea: `file:*` says which files somebody saved; all of one moment that lie in one plugin make
one operation. A plugin whose files hold something else than what runs reloads, with those that
need it; one whose files are gone is unloaded; one that is not loaded, because it is new or could
not be, is loaded. Whether a file was touched does not matter, only what it holds.

Cost: nothing while no file changes, but for two `stat`s of the settings files a second; a change
reads the files of the plugin that it is in.
Promise: what fails leaves what was: the old generation goes on, `plugin:error` and the log say why,
and the next content is tried. A plugin that was unloaded by hand stays so until its file is made
anew. Files that are gone for a moment (`GRACE`), as editors have it, have changed. A file that is
no source and keeps changing (a log in a plugin's own folder) is watched no more after
ten changes within a minute, and the log says so. Settings are read at the start: that they have
changed is said, no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from veko import Event, Plugin

from .busy_files import settings_changed
from .changes import Changes, Host, file_of

if TYPE_CHECKING:
    from veko import Context

__all__ = ["EVENTS", "Reload"]

EVENTS: Final = (
    Event(
        "dev:hotreload",
        str,
        doc="A plugin was loaded or reloaded because its files have changed. The plugin's name and "
        "the path of the file.",
    ),
)


class Reload(Plugin):
    """The core plugin of hot reload.

    Args:
        host: Loads and reloads.
        folders: The plugin folders.
        load_new: Whether plugins that are not loaded are.
        settings: Reads the settings files.
        settings_files: Which they are.
    """

    name = "reload"
    version = "2.0.0"
    description = "Reloads plugins whose files change"
    core = True

    _context: Context
    _changes: Changes

    def __init__(
        self,
        host: Host,
        folders: Iterable[Path],
        *,
        load_new: bool = True,
        settings: Callable[[], object] = lambda: None,
        settings_files: Iterable[Path] = (),
    ) -> None:
        self._host = host
        self._folders = tuple(Path(folder).absolute() for folder in folders)
        self._load_new = load_new
        self._settings = settings
        self._settings_files = tuple(settings_files)
        self._touched: dict[Path, tuple[Path, float]] = {}  # by place: a file, and when
        self._woken = anyio.Event()

    def load(self, context: Context) -> None:
        """Hook what happens to files and to plugins."""
        self._context = context
        for event in EVENTS:
            context.declare(event)
        context.provide("reload", self)
        self._changes = Changes(context, self._host, self._load_new, self._touch)
        context.hook("file:add", self._added)
        context.hook("file:change", self._touch)
        context.hook("file:delete", self._touch)
        context.hook("plugin:loaded", self._changes.loaded)
        context.hook("plugin:unloaded", self._changes.unloaded)
        context.spawn(self._run)
        context.spawn(
            settings_changed, self._settings_files, self._settings, self._settings_changed
        )

    def _added(self, path: Path) -> None:
        place = self._place(path)
        if path in (place, file_of(place)):
            self._changes.added(place)
        self._touch(path)

    def _touch(self, path: Path) -> None:
        self._touched.setdefault(self._place(path), (path, time.perf_counter()))
        self._woken.set()

    def _place(self, path: Path) -> Path:
        """Return the file or folder of the plugin that a file belongs to, or would."""
        for place in self._host.places():
            if path == place or place in path.parents:
                return place
        for folder in self._folders:
            if folder in path.parents:
                return folder / path.relative_to(folder).parts[0]
        return path

    async def _run(self) -> None:
        async with anyio.create_task_group() as group:
            while True:
                await self._woken.wait()
                await anyio.lowlevel.checkpoint()  # what was saved together is told together
                self._woken = anyio.Event()
                touched, self._touched = self._touched, {}
                if touched:
                    group.start_soon(self._changes.turn, touched)

    def _settings_changed(self) -> None:
        self._context.log("warning", "the settings have changed: they count from the next start on")

"""Watching: `file:add`, `file:change` and `file:delete` for the files of the plugin folders.

watchfiles reports where something happened; what the folders hold now tells what it was. So a file
that an editor replaces by a new one has changed (it was not deleted and added), one that came and
went between two looks was never there, and a folder that is moved in adds each of its files. This
plugin fires events and does nothing else.

Cost: a thread that wakes every `quiet` seconds (half a percent of a core), a `stat` for each
reported file, and while nothing is reported, a look at the plugin folders each second (less often
where that takes long: at most a two-hundredth of the time), because network drives and mounts of
other machines report nothing.
Promise: each change fires one event, after `quiet` seconds without another change (and after
`debounce` at the latest), in order of the paths. Changes count as soon as the plugin is active,
even before the system's watch is set up. A plugin folder that is created, removed or replaced is
found within a second. Files that tools write for themselves (`__pycache__`, `.veko`, editors'
temporary files) never fire events.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from veko import Event, Plugin
from veko.errors import LoadError, OptionError, VekoError

from ._source.files import FileChange, Watched

if TYPE_CHECKING:
    from veko import Context

__all__ = ["EVENTS", "Watch"]

_ARGUMENTS: Final = "Arguments: the path, the name of the plugin that it belongs to (or `None`)."
EVENTS: Final = (
    Event("file:add", Path, doc=f"A file was added to a plugin folder. {_ARGUMENTS}"),
    Event("file:change", Path, doc=f"A file in a plugin folder changed. {_ARGUMENTS}"),
    Event("file:delete", Path, doc=f"A file was deleted from a plugin folder. {_ARGUMENTS}"),
)

_RECHECK: Final = 1.0
"""Seconds without a report after which the folders are looked at."""
_SHARE: Final = 200
"""The pause between two looks, as a multiple of the time that a look takes."""


class Watch(Plugin):
    """The service `watch`, which fires the `file:*` events.

    Args:
        folders: The folders to watch, with all that is in them; they may be missing.
        ignore: Patterns of files that fire no events; see `unwatch`.
        quiet: Seconds without a change after which the events are fired.
        debounce: The most seconds that a change waits for others.
        allow_symlinks: Whether to watch folders outside that links lead to.
    """

    name = "watch"
    version = "2.0.0"
    description = (
        "Fires an event for each file of the plugin folders that is added, changed or deleted"
    )
    core = True

    _context: Context

    def __init__(
        self,
        folders: Iterable[str | Path],
        *,
        ignore: Iterable[str] = (),
        quiet: float = 0.02,
        debounce: float = 0.5,
        allow_symlinks: bool = False,
    ) -> None:
        self.folders = tuple(Path(folder).absolute() for folder in folders)
        self.quiet = quiet
        self.debounce = debounce
        self._files = Watched(self.folders, ignore, follow=allow_symlinks)

    def load(self, context: Context) -> None:
        """Declare the events and begin to watch.

        Raises:
            OptionError: watchfiles is not installed.
        """
        if importlib.util.find_spec("watchfiles") is None:
            raise OptionError(
                "watch_mode needs watchfiles, which is not installed",
                plugin=self.name,
                remedy="pip install 'veko[watch]'.",
            )
        self._context = context
        for event in EVENTS:
            context.declare(event)
        context.provide("watch", self)
        context.spawn(self._run)

    def activate(self) -> None:
        """Look at what is there; differences fire events from now on."""
        self._files.known = self._files.look(self.folders)

    @property
    def ignored(self) -> tuple[str, ...]:
        """The patterns of ignored files, without the built-in ones."""
        return self._files.ignored

    def ignores(self, path: Path) -> bool:
        """Return whether a file below the plugin folders is ignored."""
        return self._files.ignores(path)

    def unwatch(self, *patterns: str) -> None:
        """Ignore files from now on.

        Args:
            patterns: Shell patterns (`*`, `?`, `[…]`; `*` goes over `/` too). One without a `/`
                is matched against each part of the path below the plugin folder, one with a `/`
                against the path below the plugin folder and the whole path. Everything in an
                ignored folder is ignored too.

        Raises:
            OptionError: A pattern is empty, or not a string.
        """
        self._files.ignore(*patterns)

    # -- watching

    async def _run(self) -> None:
        while True:
            present = self._present()
            if present:
                await self._watch(present)
            else:
                await anyio.sleep(_RECHECK)
            await self._fire(self._files.compared(self.folders))

    def _present(self) -> dict[Path, tuple[int, int]]:
        """Return the folders that exist now, each with its device and inode."""
        found = {}
        for folder in self.folders:
            try:
                status = folder.stat()
            except OSError:
                continue
            found[folder] = status.st_dev, status.st_ino
        return found

    async def _watch(self, present: dict[Path, tuple[int, int]]) -> None:
        """Fire events for what happens, until other folders are present.

        Raises:
            LoadError: The system refuses to watch them.
        """
        stop = anyio.Event()
        failure: Exception | None = None
        send, receive = anyio.create_memory_object_stream[set[str] | Exception](math.inf)
        async with anyio.create_task_group() as group, receive:
            group.start_soon(self._pump, list(present), stop, send)
            try:
                # The system watches after the first step; earlier changes are found here.
                await anyio.lowlevel.checkpoint()
                await self._fire(self._files.compared(self.folders))
                failure = await self._listen(receive, present)
            finally:
                stop.set()
        if isinstance(failure, FileNotFoundError):  # a folder was removed between two steps
            await anyio.sleep(self.quiet)
        elif failure is not None:
            raise LoadError(
                f"the plugin folders cannot be watched: {failure}",
                step="watch",
                plugin=self.name,
                remedy="Allow more watches (sysctl fs.inotify.max_user_watches, "
                "max_user_instances), or set WATCHFILES_FORCE_POLLING=1.",
            ) from failure

    async def _listen(
        self,
        receive: MemoryObjectReceiveStream[set[str] | Exception],
        present: dict[Path, tuple[int, int]],
    ) -> Exception | None:
        """Fire events for what is reported; returns the error that ended it, if any."""
        looks_at = 0.0
        async for reported in receive:
            if isinstance(reported, Exception):
                return reported
            await self._fire(self._files.seen(reported))
            begin = time.monotonic()
            if not reported and begin >= looks_at:
                now = await anyio.to_thread.run_sync(self._files.look, self.folders)
                looks_at = begin + (time.monotonic() - begin) * _SHARE
                await self._fire(self._files.compared(self.folders, now))
            if self._present() != present:
                break
        return None

    async def _pump(
        self,
        folders: list[Path],
        stop: anyio.Event,
        send: MemoryObjectSendStream[set[str] | Exception],
    ) -> None:
        """Pass on what watchfiles sees; its thread ends when `stop` is set, not when cancelled."""
        from watchfiles import awatch

        changes = awatch(
            *folders,
            watch_filter=None,
            debounce=math.ceil(self.debounce * 1000),
            step=math.ceil(self.quiet * 1000),
            rust_timeout=math.ceil(_RECHECK * 1000),
            yield_on_timeout=True,
            ignore_permission_denied=True,
            stop_event=stop,
        )
        with send:
            try:
                async for seen in changes:
                    send.send_nowait({path for _, path in seen})
            except (OSError, RuntimeError) as error:  # watchfiles raises the latter
                send.send_nowait(error)

    async def _fire(self, changes: Iterable[FileChange]) -> None:
        bus = self._context.kernel.bus
        for path, kind in sorted(changes, key=lambda change: change[0]):
            await bus.emit(f"file:{kind}", path, self._owner(path))

    def _owner(self, path: Path) -> str | None:
        """Return the plugin that a file belongs to, if any."""
        kernel = self._context.kernel
        for record in kernel.records():
            if record.source is not None and not record.core:
                home = record.source
                home = home.parent if home.name == "__init__.py" else home
                if path.is_relative_to(home):
                    return record.name
        folder = self._files.folder_of(path)
        if folder is None:
            return None
        try:  # it may be a plugin that is not loaded
            source = kernel.use("discovery").find(folder / path.relative_to(folder).parts[0])
        except VekoError:
            return None
        name: str = source.name
        return name

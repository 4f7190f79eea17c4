"""Watching: `file:add`, `file:change` and `file:delete` for the files of the plugin folders.

The idea: watchfiles says where something happened, what the folders hold now says what it was. So
a file that an editor replaces by a new one has changed (it was not deleted and added), one that
came and went between two looks was never there, and a folder moved in with all its files adds
each of them. What is done about a change is the business of those who hook the events.

Cost: a thread that wakes every `quiet` seconds (half a percent of a core), a `stat` for each file
that is reported, and while nothing is, a look at the plugin folders each second (less often where
it takes long: at most a two-hundredth of the time), because network drives and mounts of other
machines report nothing.
Promise: each change is told after `quiet` seconds without another (and `debounce` at the latest),
once, in order of the paths; what changes after the plugin is active is told, even before the
system's watch stands; a plugin folder that is made, removed or replaced is found within a second.
What tools write for themselves (`__pycache__`, `.veko`, editors' temporary files) is never told.
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

from ._source.files import Told, Watched

if TYPE_CHECKING:
    from veko import Context

__all__ = ["EVENTS", "Watch"]

_SECOND: Final = "The path, and the name of the plugin that it belongs to (or `None`)."
EVENTS: Final = (
    Event("file:add", Path, doc=f"A file was added to a plugin folder. {_SECOND}"),
    Event("file:change", Path, doc=f"A file in a plugin folder has changed. {_SECOND}"),
    Event("file:delete", Path, doc=f"A file was deleted from a plugin folder. {_SECOND}"),
)

_RECHECK: Final = 1.0
"""Seconds without a report after which it looks for itself."""
_SHARE: Final = 200
"""How many times as long as it took to look it rests before it looks again."""


class Watch(Plugin):
    """The service `watch`; it only tells.

    Args:
        folders: The folders to watch, with all that is in them; they may be missing.
        ignore: Patterns of files that are not told; see `unwatch`.
        quiet: Seconds without a change after which changes are told.
        debounce: The most seconds that a change waits for others.
        allow_symlinks: Whether to watch folders outside that links lead to.
    """

    name = "watch"
    version = "2.0.0"
    description = "Tells which files of the plugin folders were added, changed and deleted"
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
        """Look at what is there: what differs from now on is told."""
        self._files.known = self._files.look(self.folders)

    @property
    def ignored(self) -> tuple[str, ...]:
        """The patterns that are ignored, without those of tools."""
        return self._files.ignored

    def ignores(self, path: Path) -> bool:
        """Tell whether a file below the plugin folders is ignored."""
        return self._files.ignores(path)

    def unwatch(self, *patterns: str) -> None:
        """Ignore files from now on.

        Args:
            patterns: Shell patterns (`*`, `?`, `[…]`; `*` goes over `/` too). One without a `/`
                is compared with each part of the path below the plugin folder, one with a `/`
                with the path below the plugin folder, or with all of it; whatever lies in a
                folder that is ignored is ignored too.

        Raises:
            OptionError: A pattern is empty, or is no string.
        """
        self._files.ignore(*patterns)

    # -- watching

    async def _run(self) -> None:
        while True:
            there = self._there()
            if there:
                await self._watch(there)
            else:
                await anyio.sleep(_RECHECK)
            await self._tell(self._files.compared(self.folders))

    def _there(self) -> dict[Path, tuple[int, int]]:
        """The folders that are there now, and which ones they are."""
        found = {}
        for folder in self.folders:
            try:
                status = folder.stat()
            except OSError:
                continue
            found[folder] = status.st_dev, status.st_ino
        return found

    async def _watch(self, there: dict[Path, tuple[int, int]]) -> None:
        """Tell what happens, until the folders are not the same any more.

        Raises:
            LoadError: The system does not let itself be asked.
        """
        stop = anyio.Event()
        failure: Exception | None = None
        send, receive = anyio.create_memory_object_stream[set[str] | Exception](math.inf)
        async with anyio.create_task_group() as group, receive:
            group.start_soon(self._pump, list(there), stop, send)
            try:
                # After its first step the system watches: what came before is found here.
                await anyio.lowlevel.checkpoint()
                await self._tell(self._files.compared(self.folders))
                failure = await self._listen(receive, there)
            finally:
                stop.set()
        if isinstance(failure, FileNotFoundError):  # it went between two steps
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
        there: dict[Path, tuple[int, int]],
    ) -> Exception | None:
        looks_at = 0.0
        async for reported in receive:
            if isinstance(reported, Exception):
                return reported
            await self._tell(self._files.seen(reported))
            begin = time.monotonic()
            if not reported and begin >= looks_at:
                now = await anyio.to_thread.run_sync(self._files.look, self.folders)
                looks_at = begin + (time.monotonic() - begin) * _SHARE
                await self._tell(self._files.compared(self.folders, now))
            if self._there() != there:
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
            except (OSError, RuntimeError) as error:  # its own errors are of the latter
                send.send_nowait(error)

    async def _tell(self, changes: Iterable[Told]) -> None:
        bus = self._context.kernel.bus
        for path, what in sorted(changes, key=lambda told: told[0]):
            await bus.emit(f"file:{what}", path, self._owner(path))

    def _owner(self, path: Path) -> str | None:
        """The plugin that a file belongs to, if it is one's."""
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
        try:  # one that is not loaded
            source = kernel.use("discovery").find(folder / path.relative_to(folder).parts[0])
        except VekoError:
            return None
        name: str = source.name
        return name

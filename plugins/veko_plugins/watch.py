"""Watching: `file:add`, `file:change` and `file:delete` for the files of the plugin folders.

The idea: watchfiles says where something happened, what the folders hold now says what it was. So
a file that an editor replaces by a new one has changed (it was not deleted and added), one that
came and went between two looks was never there, and a folder moved in with all its files adds
each of them. What is done about a change is the business of those who hook the events.

Cost: a thread that sleeps in the operating system, a `stat` for each file that is reported, and
while nothing is, a look at the plugin folders each second (less often where it takes long: at most
a two-hundredth of the time), because network drives and mounts of other machines report nothing.
Promise: each change is told after `quiet` seconds without another (and `debounce` at the latest),
once, in order of the paths; what changes after the plugin is active is told, even before the
system's watch stands; a plugin folder that is made, removed or replaced is found within a second.
What tools write for themselves (`__pycache__`, `.veko`, editors' temporary files) is never told.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib.util
import itertools
import math
import os
import re
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.streams.memory import MemoryObjectSendStream

from veko import Event, Plugin
from veko.errors import LoadError, OptionError, VekoError

if TYPE_CHECKING:
    from veko import Context

__all__ = ["EVENTS", "Watch"]

_SECOND: Final = "The path, and the name of the plugin that it belongs to (or `None`)."
ADD: Final = Event("file:add", Path, doc=f"A file was added to a plugin folder. {_SECOND}")
CHANGE: Final = Event("file:change", Path, doc=f"A file in a plugin folder has changed. {_SECOND}")
DELETE: Final = Event(
    "file:delete", Path, doc=f"A file was deleted from a plugin folder. {_SECOND}"
)
EVENTS: Final = (ADD, CHANGE, DELETE)

_RECHECK: Final = 1.0
"""Seconds without a report after which it looks for itself."""
_SHARE: Final = 200
"""How many times as long as it took to look it rests before it looks again."""

_TOOLS: Final = (
    "__pycache__", ".veko", ".git", ".hg", ".svn", ".venv", "node_modules", ".idea", ".vscode",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".DS_Store", "*.py[cod]",
    # vim, Emacs, JetBrains, Kate, GTK's editors, LibreOffice, and what others write first
    "*.sw[a-z]", "*~", "4913", ".#*", "#*#", "flycheck_*", "*___jb_???___", "*.kate-swp",
    ".goutputstream-*", ".~lock.*", "*.tmp",
)  # fmt: skip

_Stamp = tuple[int, int, int, int]
_Files = dict[Path, _Stamp]
_Told = tuple[Path, Event]


class Watch(Plugin):
    """The service `watch`; it only tells.

    Args:
        folders: The folders to watch, with all that is in them; they may be missing.
        ignore: Patterns of files that are not told; see `unwatch`.
        quiet: Seconds without a change after which changes are told.
        debounce: The most seconds that a change waits for others.
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
        quiet: float = 0.05,
        debounce: float = 0.5,
    ) -> None:
        self.folders = tuple(Path(folder).absolute() for folder in folders)
        self.quiet = quiet
        self.debounce = debounce
        self._ignored: list[str] = []
        self._known: _Files = {}
        self._found: set[Path] = set()  # by a look; the system may report them yet
        self.unwatch(*ignore)

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
        self._known = self._look(self.folders)

    @property
    def ignored(self) -> tuple[str, ...]:
        """The patterns that are ignored, without those of tools."""
        return tuple(self._ignored)

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
        for pattern in patterns:
            _check_pattern(pattern)
        self._ignored.extend(one for one in patterns if one not in self._ignored)
        with_slash = {one: "/" in one.rstrip("/") for one in self._ignored}
        self._patterns = (
            tuple(one for one in self._ignored if not with_slash[one]),
            tuple(one for one in self._ignored if with_slash[one]),
        )

    # -- watching

    async def _run(self) -> None:
        while True:
            there = self._there()
            if there:
                await self._watch(there)
            else:
                await anyio.sleep(_RECHECK)
            await self._tell(self._compared(self.folders))

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
        """Tell what happens, until the folders are not the same any more."""
        stop = anyio.Event()
        send, receive = anyio.create_memory_object_stream[set[str]](math.inf)
        try:
            async with anyio.create_task_group() as group, receive:
                group.start_soon(self._pump, list(there), stop, send)
                try:
                    # After its first step the system watches: what came before is found here.
                    await anyio.lowlevel.checkpoint()
                    await self._tell(self._compared(self.folders))
                    looks_at = 0.0
                    while self._there() == there:
                        reported = await receive.receive()
                        await self._tell(self._seen(reported))
                        begin = time.monotonic()
                        if not reported and begin >= looks_at:
                            now = await anyio.to_thread.run_sync(self._look, self.folders)
                            looks_at = begin + (time.monotonic() - begin) * _SHARE
                            await self._tell(self._compared(self.folders, now))
                finally:
                    stop.set()
        except* OSError as group_of:
            error = group_of.exceptions[0]
            raise LoadError(
                f"the plugin folders cannot be watched: {error}",
                step="watch",
                plugin=self.name,
                remedy="Allow more watches (sysctl fs.inotify.max_user_watches), or set "
                "WATCHFILES_FORCE_POLLING=1.",
            ) from error

    async def _pump(
        self, folders: list[Path], stop: anyio.Event, send: MemoryObjectSendStream[set[str]]
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
            async for seen in changes:
                send.send_nowait({path for _, path in seen})

    async def _tell(self, changes: Iterable[_Told]) -> None:
        bus = self._context.kernel.bus
        for path, event in sorted(changes, key=lambda told: told[0]):
            await bus.emit(event.name, path, self._owner(path))

    # -- what is there, and what was

    def _seen(self, reported: set[str]) -> list[_Told]:
        """What became of the paths that the system reports."""
        told: list[_Told] = []
        for path in map(self._placed, reported):
            if path is None or self._ignores(path):
                continue
            stamp = _stamp(path)
            if stamp is not None:
                if path not in self._found or self._known.get(path) != stamp:
                    told.append((path, CHANGE if path in self._known else ADD))
                self._known[path] = stamp
            elif self._known.pop(path, None) is not None:
                told.append((path, DELETE))
            else:  # a folder came or went
                told.extend(self._compared([path]))
        if reported:
            self._found.clear()
        return told

    def _compared(self, places: Sequence[Path], now: _Files | None = None) -> list[_Told]:
        """What differs below some folders from what was known of them."""
        now = self._look(places) if now is None else now
        told = [
            (path, ADD if path not in self._known else CHANGE)
            for path, stamp in now.items()
            if self._known.get(path) != stamp
        ]
        gone = [
            path
            for path in self._known
            if path not in now and any(place in path.parents for place in places)
        ]
        self._known.update(now)
        self._found.update(path for path, _ in told)
        for path in gone:
            del self._known[path]
        told.extend((path, DELETE) for path in gone if not self._ignores(path))
        return told

    def _look(self, places: Iterable[Path]) -> _Files:
        """The files below some folders that are not ignored."""
        found: _Files = {}
        for place in places:
            folder = place if place in self.folders else self._folder(place)
            if folder is None:
                continue
            inside = "".join(f"{part}/" for part in place.relative_to(folder).parts)
            pending = [(str(place), inside)]
            while pending:
                where, inside = pending.pop()
                for entry in _entries(where):
                    below = inside + entry.name
                    if self._hides(entry.name, below, entry.path):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((entry.path, f"{below}/"))
                    else:
                        stamp = _stamp(entry)
                        if stamp is not None:
                            found[Path(entry.path)] = stamp
        return found

    def _placed(self, text: str) -> Path | None:
        """A reported path as it is below its folder; some systems tell where links lead."""
        path = Path(text)
        if self._folder(path) is not None:
            return path
        for folder in self.folders:
            real = folder.resolve()
            if path.is_relative_to(real):
                return folder / path.relative_to(real)
        return None

    def _folder(self, path: Path) -> Path | None:
        """The innermost plugin folder that a path lies in."""
        around = [folder for folder in self.folders if path != folder and folder in path.parents]
        return max(around, key=lambda folder: len(folder.parts), default=None)

    def _ignores(self, path: Path) -> bool:
        """Tell whether a path is ignored, or lies in a folder that is."""
        folder = self._folder(path)
        if folder is None:
            return path not in self.folders
        parts = path.relative_to(folder).parts
        below = itertools.accumulate(parts, "{}/{}".format)
        whole = itertools.accumulate(parts, "{}/{}".format, initial=folder.as_posix())
        return any(map(self._hides, parts, below, itertools.islice(whole, 1, None)))

    def _hides(self, name: str, below: str, whole: str) -> bool:
        """Tell whether a file or folder is ignored, by its name and its paths."""
        if _matching(_TOOLS).match(name):
            return True
        if not self._ignored:
            return False
        names, paths = self._patterns
        return bool(
            (names and _matching(names).match(name))
            or (paths and (_matching(paths).match(below) or _matching(paths).match(whole)))
        )

    def _owner(self, path: Path) -> str | None:
        """The plugin that a file belongs to, if it is one's."""
        kernel = self._context.kernel
        for record in kernel.records():
            if record.source is not None and not record.core:
                home = record.source
                home = home.parent if home.name == "__init__.py" else home
                if path.is_relative_to(home):
                    return record.name
        folder = self._folder(path)
        if folder is None:
            return None
        try:  # one that is not loaded
            source = kernel.use("discovery").find(folder / path.relative_to(folder).parts[0])
        except VekoError:
            return None
        name: str = source.name
        return name


def _check_pattern(given: object) -> None:
    if not isinstance(given, str) or not given.strip("/"):
        raise OptionError(
            f"{given!r} is not a pattern of files",
            remedy="Give shell patterns, each as an argument: unwatch('logs/*', '*.log').",
        )


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _stamp(file: Path | os.DirEntry[str]) -> _Stamp | None:
    """What tells one state of a file from another; `None` if it is no file."""
    try:
        status = file.stat()
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


@functools.lru_cache(maxsize=16)
def _matching(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(one.rstrip("/")) for one in patterns))

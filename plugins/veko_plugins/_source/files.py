"""The files of some folders: which of them count, what is known of them, and what differs.

The system reports only where something happened. What is there now, beside what was known, tells
what it was: `add`, `change` or `delete`.

Cost: a `stat` for each path that is asked about; a look at a folder reads all of it.
Promise: ignored files and those that tools write for themselves never count. What a look has found
is not found a second time when the system reports it.
"""

from __future__ import annotations

import fnmatch
import functools
import itertools
import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from veko.errors import OptionError

__all__ = ["FileChange", "Files", "Watched"]

_TOOLS: Final = (
    "__pycache__", ".veko", ".git", ".hg", ".svn", ".venv", "node_modules", ".idea", ".vscode",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".DS_Store", "*.py[cod]",
    # vim, Emacs, JetBrains, Kate, GTK's editors, LibreOffice, and what others write first
    "*.sw[a-z]", "*~", "4913", ".#*", "#*#", "flycheck_*", "*___jb_???___", "*.kate-swp",
    ".goutputstream-*", ".~lock.*", "*.tmp",
)  # fmt: skip

Stamp = tuple[int, int, int, int]
Files = dict[Path, Stamp]
FileChange = tuple[Path, str]
"""A file, and what became of it: `add`, `change` or `delete`."""


class Watched:
    """What is known of the files of some folders.

    Args:
        folders: The folders, absolute; they may be missing.
        ignore: Patterns of what does not count; see `ignore`.
        follow: Whether files count that links lead to, out of the folders.
    """

    def __init__(
        self, folders: tuple[Path, ...], ignore: Iterable[str], *, follow: bool = False
    ) -> None:
        self.folders = folders
        self.follow = follow
        self.ignored: tuple[str, ...] = ()
        self.known: Files = {}
        self._found: set[Path] = set()  # by a look; the system may still report them
        self._names: tuple[str, ...] = ()
        self._paths: tuple[str, ...] = ()
        self.ignore(*ignore)

    def ignore(self, *patterns: str) -> None:
        """Ignore more files.

        Raises:
            OptionError: A pattern is empty, or not a string.
        """
        for pattern in patterns:
            _check_pattern(pattern)
        self.ignored = tuple(dict.fromkeys((*self.ignored, *patterns)))
        self._names = tuple(one for one in self.ignored if "/" not in one.rstrip("/"))
        self._paths = tuple(one for one in self.ignored if "/" in one.rstrip("/"))

    def seen(self, reported: set[str]) -> list[FileChange]:
        """Return what became of the paths that the system reports."""
        changes: list[FileChange] = []
        for path in map(self._below_folder, reported):
            if path is None or self.ignores(path) or self._is_outside(path):
                continue
            stamp = _stamp(path)
            if stamp is not None:
                if path not in self._found or self.known.get(path) != stamp:
                    changes.append((path, "change" if path in self.known else "add"))
                self.known[path] = stamp
                continue
            if self.known.pop(path, None) is not None:
                changes.append((path, "delete"))
            changes.extend(self.compared([path]))  # a folder may have come or gone
        if reported:
            self._found.clear()
        return changes

    def compared(self, locations: Sequence[Path], now: Files | None = None) -> list[FileChange]:
        """Return what differs below some folders from what was known of them."""
        now = self.look(locations) if now is None else now
        changes = [
            (path, "add" if path not in self.known else "change")
            for path, stamp in now.items()
            if self.known.get(path) != stamp
        ]
        gone = [
            path
            for path in self.known
            if path not in now and any(location in path.parents for location in locations)
        ]
        self.known.update(now)
        self._found.update(path for path, _ in changes)
        for path in gone:
            del self.known[path]
        changes.extend((path, "delete") for path in gone if not self.ignores(path))
        return changes

    def look(self, locations: Iterable[Path]) -> Files:
        """Return the files below some folders that are not ignored."""
        found: Files = {}
        for location in locations:
            folder = location if location in self.folders else self.folder_of(location)
            if folder is None:
                continue
            inside = "".join(f"{part}/" for part in location.relative_to(folder).parts)
            pending: list[tuple[str, str, tuple[str, ...]]]
            pending = [(str(location), inside, (os.path.realpath(location),))]
            while pending:
                where, inside, links = pending.pop()
                for entry in _entries(where):
                    below = inside + entry.name
                    if self._hides(entry.name, below, entry.path):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((entry.path, f"{below}/", links))
                    elif entry.is_dir():
                        real = os.path.realpath(entry.path)
                        if real not in links and self._follows(real, folder):
                            pending.append((entry.path, f"{below}/", (*links, real)))
                    else:
                        stamp = _stamp(entry)
                        if stamp is not None:
                            found[Path(entry.path)] = stamp
        return found

    def _follows(self, real: str, folder: Path) -> bool:
        """Return whether the files in a folder that a link leads to count."""
        return self.follow or real.startswith(os.path.realpath(folder) + os.sep)

    def _is_outside(self, path: Path) -> bool:
        """Return whether a link leads to a path that does not count."""
        folder = self.folder_of(path)
        return folder is not None and any(
            one.is_symlink() and one.is_dir() and not self._follows(os.path.realpath(one), folder)
            for one in (path, *path.parents)
            if folder in one.parents
        )

    def _below_folder(self, text: str) -> Path | None:
        """Return a reported path as a path below its folder; some systems resolve links."""
        path = Path(text)
        if self.folder_of(path) is not None:
            return path
        for folder in self.folders:
            real = folder.resolve()
            if path.is_relative_to(real):
                return folder / path.relative_to(real)
        return None

    def folder_of(self, path: Path) -> Path | None:
        """Return the innermost plugin folder that a path lies in."""
        around = [folder for folder in self.folders if path != folder and folder in path.parents]
        return max(around, key=lambda folder: len(folder.parts), default=None)

    def ignores(self, path: Path) -> bool:
        """Return whether a path is ignored, or lies in an ignored folder."""
        folder = self.folder_of(path)
        if folder is None:
            return path not in self.folders
        parts = path.relative_to(folder).parts
        below = itertools.accumulate(parts, "{}/{}".format)
        whole = itertools.accumulate(parts, "{}/{}".format, initial=folder.as_posix())
        return any(map(self._hides, parts, below, itertools.islice(whole, 1, None)))

    def _hides(self, name: str, below: str, whole: str) -> bool:
        """Return whether a file or folder is ignored, by its name and its paths."""
        if _matching(_TOOLS).match(name):
            return True
        if not self.ignored:
            return False
        names, paths = self._names, self._paths
        return bool(
            (names and _matching(names).match(name))
            or (paths and (_matching(paths).match(below) or _matching(paths).match(whole)))
        )


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


def _stamp(file: Path | os.DirEntry[str]) -> Stamp | None:
    """Return what differs between two states of a file; `None` if it is not a regular file."""
    try:
        status = file.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):  # a FIFO is never read: that would wait for a writer
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


@functools.lru_cache(maxsize=16)
def _matching(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(one.rstrip("/")) for one in patterns))

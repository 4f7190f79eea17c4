"""Discovery: finds plugins in the plugin folders and among the entry points.

A plugin is a Python file or package folder in a plugin folder, or a script: a file in JavaScript or
TypeScript, or a folder with `package.json` or an `index` file. Names that begin with `_` or `.` are
skipped. Name, version, dependencies and priority are read from the source without running it, where
that is possible, so that plugins can be ordered before they are imported. Handlers of
`plugin:resolve` add other kinds of sources.

Cost: a scan reads each plugin's file once; the loader does not compile it again.
Promise: the same folders give the same sources in the same order (folders as given, then by name,
then entry points). No plugin's code runs. What looks like a plugin and is none is a `Problem` with
its error; the rest is found.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Final

import msgspec

from veko import (
    ConflictError,
    Context,
    Event,
    LoadError,
    NotFoundError,
    Plugin,
    VekoError,
    as_plugin,
)

from .._lib.entry_points import find_entry_points
from .._lib.versions import did_you_mean
from .._source.bytecode import SourceCache, read_source
from .._source.outline import make_outline
from .._source.packages import main_file
from .._source.scripts import SUFFIXES, is_script, manifest_fields
from .._source.source import Outline, Problem, Source
from .._source.transpilers import PYTHON
from .entries import INIT, TOML, Entry, look_at, may_require, read_fields, siblings
from .script_fields import script_fields

__all__ = ["GROUP", "RESOLVE", "Discovery", "Found", "Outline", "Problem", "Source"]

GROUP: Final = "veko.plugins"
RESOLVE: Final = Event(
    "plugin:resolve",
    returns=True,
    doc="A plugin is looked up. Argument: its name or path (a `str` or `Path`). The first "
    "answer counts: a `Source`, or a plugin in any form. `None` leaves it to the other "
    "handlers.",
)


class Found(msgspec.Struct, frozen=True):
    """What a scan found.

    Attributes:
        sources: Plugins, in the order in which they were found.
        problems: What looks like a plugin and is none.
    """

    sources: tuple[Source, ...]
    problems: tuple[Problem, ...]


class Discovery(Plugin):
    """The service `discovery`.

    Args:
        plugins_dir: The plugin folders.
        cache: The `SourceCache` of the loader, which keeps what a scan compiles.
        allow_symlinks: Whether links may lead out of a plugin folder.
        missing_ok: Whether a plugin folder may be missing.
        directory: The start of relative paths given to `resolve`; `None` for the working directory.
        group: The group of entry points, or `None` to leave them out.
        scripts: Why scripts are passed over; `None` to find them.
    """

    name = "discovery"
    version = "2.0.0"
    description = "Finds plugins in folders and among installed distributions."
    core = True

    def __init__(
        self,
        plugins_dir: str | Path | Sequence[str | Path] = (),
        *,
        cache: SourceCache | None = None,
        allow_symlinks: bool = False,
        missing_ok: bool = False,
        directory: Path | None = None,
        group: str | None = GROUP,
        scripts: str | None = None,
    ) -> None:
        folders = [plugins_dir] if isinstance(plugins_dir, str | Path) else plugins_dir
        self.folders = tuple(Path(folder).absolute() for folder in folders)
        self.directory = directory
        self._cache = cache or SourceCache()
        self._allow_symlinks = allow_symlinks
        self._missing_ok = missing_ok
        self._group = group
        self._no_scripts = scripts
        self._context: Context | None = None
        self._passed_over: set[str] = set()

    def load(self, context: Context) -> None:
        """Provide the service and declare its event."""
        self._context = context
        context.declare(RESOLVE)
        context.provide("discovery", self)

    async def resolve(self, wanted: str | Path) -> Source | Plugin:
        """Find a plugin by its name, its path or the name of its entry point.

        Handlers of `plugin:resolve` are asked first.

        Returns:
            The source, or the plugin if a handler returned one.

        Raises:
            NotFoundError: There is none; the message lists similar names and where it looked.
            VekoError: It was found and is not a valid plugin.
        """
        if self._context is not None:
            for answer in await self._context.kernel.bus.gather(RESOLVE.name, wanted):
                if isinstance(answer, Source):
                    return answer
                # A hook on `plugin:*` may return its argument, which is no answer.
                if answer is not None and answer is not wanted:
                    return as_plugin(answer)
        return self.find(wanted)

    def find(self, wanted: str | Path) -> Source:
        """Find a source in the plugin folders, by path, or among the entry points.

        A file or folder of that name comes before a plugin that has the name in its manifest only.

        Raises:
            NotFoundError: There is none.
            VekoError: It was found and is not a valid plugin.
        """
        if isinstance(wanted, Path) or _is_path(wanted):
            return self._at((self.directory or Path.cwd()) / wanted)
        problems: list[Problem] = []
        for folder in self.folders:
            files = tuple(f"{wanted}{suffix}" for suffix in self.suffixes())
            if self._no_scripts is None:
                files = (*files, *(f"{wanted}{suffix}" for suffix in SUFFIXES))
            for entry in (*files, wanted) if _plain(wanted) else ():
                linked = os.path.islink(folder / entry)  # noqa: PTH114
                for source in self._look(folder, entry, linked, False, problems):
                    if source.outline is None or source.outline.name == wanted:
                        return source
        found = self.scan()
        by_name = {source.name: source for source in reversed(found.sources)}
        if wanted in by_name:
            return by_name[wanted]
        for problem in (*problems, *found.problems):
            if problem.name == wanted:
                raise problem.error
        raise self._unknown(wanted, by_name)

    def suffixes(self) -> tuple[str, ...]:
        """Return the suffixes of plugin files: `.py`, and those that transpilers take now."""
        transpilers = self._cache.transpilers
        return (PYTHON, *sorted(transpilers.suffixes())) if transpilers is not None else (PYTHON,)

    def file_of(self, path: Path) -> Path | None:
        """Return the file that would be imported for a file or folder, whether it is there or not.

        Returns:
            `None` if a file of that name is no plugin.
        """
        if path.is_dir():
            return main_file(path)
        return path if self._may_be_plugin(path.name) else None

    def _suffix(self, entry: str) -> str:
        """Return the suffix of a plugin file; empty if a file of that name is none."""
        if entry.endswith(PYTHON):
            return PYTHON
        transpilers = self._cache.transpilers
        return (transpilers.suffix_of(entry) if transpilers is not None else None) or ""

    def _may_be_plugin(self, entry: str) -> bool:
        """Return whether a file of that name may be a plugin."""
        return bool(self._suffix(entry)) or (self._no_scripts is None and is_script(entry))

    def scan(self) -> Found:
        """Return what all plugin folders and entry points hold now."""
        problems: list[Problem] = []
        sources: dict[str, Source] = {}
        names: dict[str, Source] = {}
        self._cache.forget()
        for folder in self.folders:
            for entry, linked, is_file in self._entries(folder, problems):
                for source in self._look(folder, entry, linked, is_file, problems):
                    self._keep(source, sources, names, problems)
        for point in self._entry_points():
            source = Source(name=_guess(point.name), kind="entry-point", entry_point=point)
            self._keep(source, sources, names, problems)
        return Found(tuple(sources.values()), tuple(problems))

    def passed_over(self) -> list[str]:
        """Return a line for each file that looks like a plugin and is not found; each once."""
        lines: list[str] = []
        for folder in self.folders:
            try:
                names = sorted(os.listdir(folder))  # noqa: PTH208
            except OSError:  # the scan reports it
                continue
            lines += [
                f"{folder / name} is passed over: {why}"
                for name in names
                if (why := self._why_passed_over(folder / name))
            ]
        lines = [line for line in lines if line not in self._passed_over]
        self._passed_over.update(lines)
        return lines

    def _why_passed_over(self, path: Path) -> str | None:
        if self._no_scripts is not None and _plain(path.name):
            try:
                entry = look_at(path, self._suffix(path.name))
            except VekoError:
                return None
            if entry is not None and entry.kind == "script":
                return self._no_scripts
        if path.suffix != ".py" or not path.name.startswith("_") or not path.is_file():
            return None
        try:
            fields = self._cache.ahead(str(path)) or {}
        except (VekoError, SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        if "name" not in fields or "version" not in fields:  # a module that plugins share
            return None
        return "its name begins with '_'. Rename it, if it is to be loaded"

    def forget(self) -> None:
        """Release compiled sources that were read ahead and not imported."""
        self._cache.forget()

    def _keep(
        self,
        source: Source,
        sources: dict[str, Source],
        names: dict[str, Source],
        problems: list[Problem],
    ) -> None:
        key = str(source)
        if key in sources:
            return  # two of the plugin folders are the same
        if source.outline is not None or source.kind == "entry-point":
            first = names.setdefault(source.name, source)
            if first is not source:
                error = ConflictError(
                    f"two plugins are named {source.name!r}: {first} and {source}",
                    plugin=source.name,
                    path=source.path,
                    remedy=f"Rename one; {first} counts until then.",
                )
                problems.append(Problem(source.name, source.path, error))
                return
        sources[key] = source

    def _entries(self, folder: Path, problems: list[Problem]) -> Iterable[tuple[str, bool, bool]]:
        """Return the names that may be plugins, and whether each is a link or a plain file."""
        try:
            with os.scandir(folder) as entries:
                return sorted(
                    (entry.name, entry.is_symlink(), entry.is_file(follow_symlinks=False))
                    for entry in entries
                    if _plain(entry.name)
                    and (
                        self._may_be_plugin(entry.name) or not entry.is_file(follow_symlinks=False)
                    )
                )
        except FileNotFoundError as error:
            if self._missing_ok:
                return ()
            what: OSError = error
        except OSError as error:
            what = error
        fault = LoadError(
            f"the plugin folder cannot be read: {what.strerror}",
            step="discover",
            path=folder,
            remedy="Create it, allow this user to read it, or fix the option `plugins_dir`.",
        )
        fault.__cause__ = what
        problems.append(Problem(_guess(folder.name), folder, fault))
        return ()

    def _look(
        self, folder: Path, entry: str, linked: bool, is_file: bool, problems: list[Problem]
    ) -> Iterator[Source]:
        """Yield the plugin that one entry of a folder is, if it is one."""
        path = folder / entry
        try:
            found = self._entry_at(path, linked, is_file)
            if found is not None:
                self._check_links(path, found, linked)
                yield self._source(path, found)
        except VekoError as error:
            problems.append(Problem(self._guess(path), path, error))

    def _entry_at(self, path: Path, linked: bool = False, is_file: bool = False) -> Entry | None:
        scripts = self._no_scripts is None
        return look_at(
            path, self._suffix(path.name), linked=linked, is_file=is_file, scripts=scripts
        )

    def _source(self, path: Path, entry: Entry) -> Source:
        package = entry.kind == "package"
        fields = read_fields(path / TOML) if package else entry.fields
        outline: Outline | None = None
        file = path / (entry.main or INIT) if package or entry.main else path
        try:
            if entry.kind == "script":
                text, _ = read_source(str(file), self._cache.max_source)
                written = script_fields(text.decode())
                own = None if written is None else manifest_fields(written)
            else:
                own = self._cache.ahead(str(file))
            outline = make_outline(own, fields)
        except Exception:
            # Whatever the parser makes of a file is a fault of that plugin alone: importing it
            # raises the error, with the line (test_one_bad_file_is_a_fault_of_its_plugin_alone).
            pass
        text = self._cache.read_ahead(str(file))
        return Source(
            name=outline.name if outline is not None else self._guess(path, fields),
            kind=entry.kind,
            path=path,
            main=entry.main,
            outline=outline,
            fields=fields,
            requires=entry.kind != "script" and may_require(path, package, text),
        )

    def _guess(self, path: Path, fields: Mapping[str, object] | None = None) -> str:
        name = fields.get("name") if fields else None
        if isinstance(name, str) and name:
            return _guess(name)
        suffix = self._suffix(path.name)
        return _guess(path.name.removesuffix(suffix) if suffix else path.stem)

    def _check_links(self, path: Path, entry: Entry, linked: bool) -> None:
        """Refuse a plugin that a link brings in from outside its plugin folder, unless allowed."""
        if self._allow_symlinks:
            return
        inside = filter(os.path.islink, entry.linkable(path))
        for one in (*((path,) if linked else ()), *inside):
            real, home = os.path.realpath(one), os.path.realpath(path.parent)
            if not real.startswith(home + os.sep):
                raise LoadError(
                    f"{one} is a link out of the plugin folder, to {real}",
                    step="discover",
                    path=one,
                    remedy="Copy it into the folder, or set the option `allow_symlinks`.",
                )

    def _at(self, path: Path) -> Source:
        path = path.absolute()
        if path.name == INIT:
            path = path.parent
        entry = self._entry_at(path)
        if entry is not None:
            if path.parent in self.folders:
                self._check_links(path, entry, path.is_symlink())
            return self._source(path, entry)
        there = os.path.exists(path)  # noqa: PTH110
        transpilers = self._cache.transpilers
        missing = transpilers.missing(str(path)) if transpilers is not None else None
        if there and missing is not None:
            remedy = missing
        elif there and is_script(path):
            remedy = f"It is a script: {self._no_scripts}."
        elif there:
            remedy = f"A plugin is a .py file, or a folder with {INIT}."
            inside = sorted(one for one in siblings(path / INIT) if one.endswith(".py"))
            if inside:
                remedy += f" This is a folder of plugins: name one, such as {path / inside[0]}."
        else:
            remedy = f"Fix the path. {did_you_mean(path.name, siblings(path))}".rstrip()
        what = f"{path} is not a plugin" if there else f"there is no {path}"
        raise NotFoundError(what, path=path, remedy=remedy)

    def _entry_points(self) -> list[EntryPoint]:
        if self._group is None:
            return []
        return sorted(find_entry_points(self._group), key=lambda one: (one.name, one.value))

    def _unknown(self, wanted: str, known: Iterable[str]) -> NotFoundError:
        searched = [str(folder) for folder in self.folders]
        if self._group is not None:
            searched.append(f"the entry points of {self._group}")
        near = did_you_mean(wanted, known)
        return NotFoundError(
            f"there is no plugin {wanted if len(wanted) < 80 else wanted[:78] + '…'!r}",
            remedy=f"{near} Looked in {', '.join(searched)}.".strip(),
        )


def _is_path(wanted: str) -> bool:
    separators = (os.sep, os.altsep or os.sep)
    return (
        wanted.endswith(PYTHON)
        or is_script(wanted)
        or any(separator in wanted for separator in separators)
    )


def _plain(entry: str) -> bool:
    return entry[:1] not in {"_", ".", ""}


def _guess(stem: str) -> str:
    return re.sub(r"[^a-z0-9._-]", "-", stem.lower()).lstrip("._-") or "unnamed"

"""What to do when plugin files have changed: reload, load or unload their plugins.

Changes that come together are one operation for each plugin, in the order of their dependencies.
Only the content of files counts. A plugin that failed is not tried again with the same content of
its files, and of those that reload with it, unless something that it needs has become available.
"""

from __future__ import annotations

import contextlib
import glob
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from veko import PluginRecord, State
from veko.errors import DependencyError, NotFoundError, VekoError

from .._lib.versions import Requirement
from .._source.content import Content, content_now, differing
from .._source.loading import Loading
from .._source.packages import main_file
from .._source.source import Source
from .differences import changed_files, survey
from .noisy_files import NoisyFiles
from .path_locks import PathLocks

if TYPE_CHECKING:
    from veko import Context

__all__ = ["GONE_AFTER", "Changes", "Touched"]

Touched = Mapping[Path, tuple[Path, float]]
"""By location (the file or folder of a plugin): a file of it that has changed, and when."""
GONE_AFTER: Final = 0.25
"""Seconds that a plugin's files may be missing before it is unloaded."""


class Changes:
    """Reloads, loads and unloads plugins after changes of their files.

    Locations (files and folders of plugins) are keys here, as a file may change its plugin's name.

    Args:
        context: The context of the core plugin `reload`.
        load_new: Whether to load plugins that are not loaded.
        touch: Called with each location that is to be handled once more.
    """

    def __init__(self, context: Context, load_new: bool, touch: Callable[[Path], None]) -> None:
        self._context = context
        self._loading: Loading = context.use("loading")
        self._load_new = load_new
        self._touch = touch
        self._locks = PathLocks()
        self._noisy = NoisyFiles()
        self._failed: dict[Path, Content] = {}  # what was tried
        self._refused: set[Path] = set()  # of these, refused because of plugins that need them
        self._waiting: set[Path] = set()  # not loaded, as what they need was missing
        self._needed: dict[str, Path] = {}  # their files are gone, but others need them
        self._unloading: set[str] = set()  # by us
        self._unloaded_by_hand: set[Path] = set()

    def added(self, location: Path) -> None:
        """Note that a plugin's file was created."""
        self._unloaded_by_hand.discard(location)
        self._failed.pop(location, None)

    def loaded(self, name: str) -> None:
        """Note that a plugin was loaded, by us or by hand."""
        self._unloaded_by_hand.difference_update(self._locations_of(name))

    def unloaded(self, name: str, record: PluginRecord) -> None:
        """Note that a plugin was unloaded, by us or by hand."""
        self._needed.pop(name, None)
        for location in self._needed.values():  # the plugin that needed them may be gone
            self._touch(location)
        if name not in self._unloading and record.state is State.UNLOADED:  # else it has failed
            self._unloaded_by_hand.update(self._locations_of(name))

    def _locations_of(self, name: str) -> list[Path]:
        return [location for location, one in self._loading.locations().items() if one == name]

    async def handle(self, touched: Touched) -> None:
        """Reload, load and unload what the changes of one moment ask for."""
        touched = {at: change for at, change in touched.items() if not _is_begun(at)}
        seen = survey(self._context.kernel, self._loading, touched.keys())
        moved = self._relocated(seen.moved)
        locations = seen.present | self._failed_because_of(seen.present) | moved
        fresh = seen.new - set(moved.values()) - self._unloaded_by_hand
        news: list[str] = []
        for name in sorted(locations, key=self._rank):
            location = locations[name]
            change = touched.get(location, (location, time.perf_counter()))
            news += await self._guarded(self._reload, name, location, *change)
        if fresh and self._load_new:
            news += await self._guarded(self._load, fresh, touched)
        if news and self._load_new:
            await self._guarded(self._load_waiting, news, touched)
        if set(seen.gone) - moved.keys():
            await anyio.sleep(GONE_AFTER)
            await self._guarded(self._unload, seen.gone)
            if self._waiting and self._load_new:
                await self._guarded(self._load_waiting, [], touched)

    def _relocated(self, moved: Mapping[str, Source]) -> dict[str, Path]:
        """Make plugins that moved reload from their new location; returns that by name."""
        found: dict[str, Path] = {}
        for name, source in moved.items():
            # Without an outline the name is a guess; the plugin is loaded as a new one.
            if source.outline is not None and source.path is not None:
                self._loading.relocate(name, source)
                found[name] = source.path
        return found

    def _failed_because_of(self, names: Collection[str]) -> dict[str, Path]:
        """Return failed plugins that reload some plugins with them: these may be the cause."""
        runs = self._loading.locations()
        return {
            runs[location]: location
            for location in self._failed.keys() & runs.keys()
            if not self._dependents(runs[location]).isdisjoint(names)
        }

    def _dependents(self, name: str) -> set[str]:
        """Return all plugins that need one, so that they reload with it."""
        found, pending = set[str](), [name]
        while pending:
            above = {one.name for one in self._context.kernel.dependents(pending.pop())} - found
            found |= above
            pending += above
        return found

    def _try_again(self, name: str) -> None:
        """Look again at plugins that may have failed because of one that has changed now."""
        runs = self._loading.locations()
        for location in self._failed.keys() & runs.keys():
            refused = location in self._refused and name in self._dependents(runs[location])
            if refused or name in self._needs_now(location):
                del self._failed[location]
                self._touch(location)

    def _needs_now(self, location: Path) -> set[str]:
        """Return the plugins that the one at a location needs, as its files say now."""
        try:
            return _needs(self._source_at(location))
        except VekoError:
            return set()

    def _source_at(self, wanted: Path | str) -> Source:
        """Return the source at a location, or of a name.

        Raises:
            VekoError: There is none, or it is no plugin.
        """
        source: Source = self._context.use("discovery").find(wanted)
        return source

    async def _guarded(self, step: Callable[..., Any], *args: Any) -> list[str]:
        try:
            done: list[str] = await step(*args)
        except Exception as error:  # for example, a plugin folder that cannot be read
            await self._context.kernel.bus.report(error, owner=self._context.name, handler="reload")
            return []
        return done

    def _runs(self, name: str) -> bool:
        record = self._context.kernel.get(name)
        return record is not None and record.loaded

    def _rank(self, name: str) -> int:
        record = self._context.kernel.get(name)
        return 0 if record is None else record.rank

    async def _reload(self, name: str, location: Path, path: Path, begin: float) -> list[str]:
        """Reload a plugin if its files hold something else; returns it if its version changed.

        A failure was already reported by the reload.
        """
        news: list[str] = []
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._locks.hold(location))
            # Renaming unloads the old name: not by hand.
            stack.callback(self._unloaded_by_hand.discard, location)
            record = self._context.kernel.get(name)
            looked = await changed_files(self._loading, name, location)
            if record is None or not record.loaded or looked is None:
                return news
            now, changed = looked
            changed = self._without_ignored(changed)
            whole = now | await self._content_of_dependents(name)
            tried = (self._failed.get(location), whole), (self._loading.rejected(name), now)
            if not changed or any(a is not None and not differing(a, b) for a, b in tried):
                return news
            before = record.version
            self._refused.discard(location)
            self._failed[location] = whole
            try:
                fresh = await self._loading.reload_plugin(name, drained=False)
            except Exception as error:
                if isinstance(error, DependencyError):
                    self._refused.add(location)
                still = (
                    f"version {record.version} keeps running" if self._runs(name) else "it is down"
                )
                self._context.log("warning", f"failed {name}: {still}")  # why was reported before
                return news
            except anyio.get_cancelled_exc_class():
                self._failed.pop(location, None)
                self._context.log("warning", f"aborted {name}: its files have changed again")
                raise
            self._failed.pop(location, None)
            self._try_again(name)
            if fresh is not record:  # its file says another name
                self._try_again(fresh.name)
                await self._announce(f"reloaded {name} as", fresh, path, begin)
                return [*news, fresh.name]
            await self._announce("reloaded", record, path, begin)
            if record.version != before:
                news.append(name)
        return news

    async def _content_of_dependents(self, name: str) -> Content:
        """Return what the files of all plugins that reload with one hold."""
        dependents, content = self._dependents(name), Content()
        for location, one in self._loading.locations().items():
            if one in dependents:
                before = self._loading.content(one) or {}
                content |= await content_now(location, before, self._loading.max_source)
        return content

    async def _load(
        self, new: Collection[Path], touched: Mapping[Path, Any], again: bool = False
    ) -> list[str]:
        """Load plugins that are not loaded; returns those that are now.

        Args:
            new: Their locations.
            touched: The changes that led here.
            again: Whether to try again what failed with the same content.
        """
        news: list[str] = []
        async with AsyncExitStack() as stack:
            wanted: dict[Path, Content] = {}
            for location in sorted(new):
                await stack.enter_async_context(self._locks.hold(location))
                now = await content_now(location, {}, self._loading.max_source)
                if again or differing(self._failed.get(location, {}), now):
                    wanted[location] = now
            if not wanted:
                return news
            self._failed |= wanted
            report = await self._loading.load_all(wanted, retries=0)
            for name in report.failed:  # why was reported before
                self._context.log("warning", f"failed {name}: it is not loaded")
            for name, why in report.skipped.items():
                self._context.log("warning", f"failed {name}: it {why}")
            broken = [e for e in report.failed.values() if not isinstance(e, DependencyError)]
            if len(report.loaded) + len(broken) < len(wanted):  # or a name is still taken
                self._waiting.update(wanted)
            for location, name in self._loading.locations().items():
                record = self._context.kernel.get(name)
                if location in wanted and record is not None and record.loaded:
                    self._failed.pop(location, None)
                    self._try_again(name)
                    change = touched.get(location, (location, None))
                    await self._announce("loaded", record, *change)
            self._warn_of_copies(wanted)
            news += report.loaded
        return news

    def _warn_of_copies(self, locations: Iterable[Path]) -> None:
        for location in locations:
            with contextlib.suppress(VekoError):  # loading it has reported why
                name = self._source_at(location).name
                for other in self._locations_of(name):
                    if other != location:
                        self._context.log(
                            "warning", f"{location} is not loaded: {name} runs from {other}"
                        )

    async def _load_waiting(self, news: Collection[str], touched: Mapping[Path, Any]) -> list[str]:
        """Load plugins that were not loaded because something that they need was missing.

        Args:
            news: Plugins that are there now, or have another version.
            touched: The changes that led here.
        """
        needed, waiting = set(news), self._waiting - self._loading.locations().keys()
        self._waiting.clear()
        sources = await self._not_loaded()
        known = 0
        while len(needed) > known:  # they may need each other in a chain
            known = len(needed)
            for source in sources:
                if source.path is not None and not needed.isdisjoint(_needs(source)):
                    waiting.add(source.path)
                    needed.add(source.name)
        return await self._load(waiting, touched, again=True) if waiting else []

    async def _not_loaded(self) -> list[Source]:
        discovery = self._context.use("discovery")
        found = await anyio.to_thread.run_sync(discovery.scan)
        discovery.forget()
        known = self._loading.locations().keys() | self._unloaded_by_hand
        return [source for source in found.sources if source.path not in known]

    async def _unload(self, gone: Iterable[str]) -> list[str]:
        """Unload plugins whose files are gone, those that need others first."""
        kernel = self._context.kernel
        for name in sorted(gone, key=self._rank, reverse=True):
            locations = self._locations_of(name)
            if not locations:
                continue
            location = locations[0]
            if main_file(location).is_file() or self._is_elsewhere(name):
                self._touch(location)
                continue
            async with self._locks.hold(location):
                self._unloading.add(name)
                try:
                    await kernel.unload(name)
                except NotFoundError:
                    pass  # it was unloaded meanwhile
                except DependencyError as error:
                    self._needed[name] = location
                    self._context.log(
                        "warning", f"{name} keeps running though its files are gone: {error}"
                    )
                except Exception as error:
                    await kernel.bus.report(error, owner=kernel.get(name), handler="reload")
                else:
                    self._context.log("success", f"unloaded {name}: its files are gone")
                finally:
                    self._unloading.discard(name)
        return []

    def _is_elsewhere(self, name: str) -> bool:
        """Return whether a plugin is found in another file; its next reload imports that one."""
        try:
            source = self._source_at(name)
        except VekoError:
            return False
        if source.path is None or not main_file(source.path).is_file():
            return False
        self._loading.relocate(name, source)
        self._failed.pop(source.path, None)
        self._touch(source.path)
        return True

    async def _announce(
        self, what: str, record: PluginRecord, path: Path, begin: float | None
    ) -> None:
        took = "" if begin is None else f" in {(time.perf_counter() - begin) * 1000:.0f} ms"
        self._context.log("success", f"{what} {record.name} {record.version}{took}")
        await self._context.kernel.bus.emit("dev:hotreload", record.name, path)

    def _without_ignored(self, changed: Collection[Path]) -> set[Path]:
        """Return changed files without ignored and noisy ones; the noisy are ignored from now."""
        watch = self._context.use("watch")
        counting = {path for path in changed if not watch.ignores(path)}
        for path in self._noisy.among(counting):
            counting.discard(path)
            watch.unwatch(glob.escape(path.as_posix()))
            self._context.log(
                "warning",
                f"{path} changes all the time and is no longer watched: write such files outside "
                "the plugin's folder, or add them to watch_ignore",
            )
        return counting


def _needs(source: Source) -> set[str]:
    """Return the names of the plugins that a source needs, as far as it tells."""
    dependencies = source.outline.dependencies if source.outline is not None else ()
    found: set[str] = set()
    for text in dependencies:
        with contextlib.suppress(ValueError):  # loading it reports what is wrong
            found.add(Requirement.parse(text).name)
    return found


def _is_begun(location: Path) -> bool:
    """Return whether a file is empty because somebody is about to write it."""
    try:
        return main_file(location).stat().st_size == 0
    except OSError:
        return False

"""What becomes of plugins whose files have changed: they reload, load, or are unloaded.

Of one moment's changes each plugin gets one operation, those that others need first. What files
hold decides, not whether they were touched; what has failed is not tried again with that content
of its files and of those that reload with it, unless something that it needs is there meanwhile.
"""

from __future__ import annotations

import contextlib
import glob
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio
import anyio.to_thread

from veko import PluginRecord, State
from veko.errors import DependencyError, NotFoundError, VekoError

from .._lib.versions import Requirement
from .._source.content import Content, content_now, differing
from .._source.source import Source
from .busy_files import Noise
from .place_lock import Turns

if TYPE_CHECKING:
    from veko import Context

__all__ = ["GRACE", "Changes", "Host", "file_of"]

Touched = Mapping[Path, tuple[Path, float]]
"""By the file or folder of a plugin: a file of it that has changed, and when that was told."""
GRACE: Final = 0.25
"""Seconds that files may be gone before their plugin is unloaded."""


class Host(Protocol):
    """What loads plugins: the manager's part in this."""

    def places(self) -> Mapping[Path, str]:
        """The files and folders that plugins run from, with their names."""
        ...

    def content(self, name: str) -> Content | None:
        """What the files of a loaded plugin held; `None` if it is of no file."""
        ...

    def rejected(self, name: str) -> Content | None:
        """What they held when it was taken back last, if it was."""
        ...

    def relocate(self, name: str, origin: Any) -> None:
        """Let the next reload of a plugin be from elsewhere."""
        ...

    async def reload(
        self, name: str, config: Mapping[str, Any] | None, *, drained: bool = True
    ) -> PluginRecord:
        """Give a plugin a new generation."""
        ...

    async def load_all(
        self, among: Collection[Path] | None = None, *, retries: int | None = None
    ) -> Any:
        """Load what is found; returns a `LoadReport`."""
        ...


class Changes:
    """What is done about changes.

    Args:
        context: Of the core plugin `reload`.
        host: Loads and reloads.
        load_new: Whether plugins that are not loaded are.
        touch: Called with what is to be looked at once more.
    """

    def __init__(
        self, context: Context, host: Host, load_new: bool, touch: Callable[[Path], None]
    ) -> None:
        self._context = context
        self._host = host
        self._load_new = load_new
        self._touch = touch
        self._turns = Turns()
        self._noise = Noise()
        self._failed: dict[Path, Content] = {}
        self._aside: set[Path] = set()  # unloaded by hand
        self._leaving: set[str] = set()  # unloaded here
        self._overdue: dict[str, Path] = {}  # gone, and needed by others
        self._short: set[Path] = set()  # not loaded for want of others
        self._refused: set[Path] = set()  # not reloaded for what others need

    def added(self, place: Path) -> None:
        """Note that somebody has made a plugin's file anew."""
        self._aside.discard(place)
        self._failed.pop(place, None)

    def loaded(self, name: str) -> None:
        """Note that a plugin is loaded, by whomever."""
        self._aside.difference_update(self._places_of(name))

    def unloaded(self, name: str, record: PluginRecord) -> None:
        """Note that a plugin is unloaded; by hand, if it was not done here."""
        self._overdue.pop(name, None)
        for place in self._overdue.values():  # what has kept them may be gone
            self._touch(place)
        if name not in self._leaving and record.state is State.UNLOADED:  # else it has failed
            self._aside.update(self._places_of(name))

    def _places_of(self, name: str) -> list[Path]:
        return [place for place, one in self._host.places().items() if one == name]

    async def turn(self, touched: Touched) -> None:
        """Do what one moment's changes ask for."""
        touched = {place: told for place, told in touched.items() if not _is_begun(place)}
        places = self._host.places()
        there = {place for place in touched if file_of(place).is_file()}
        moved = self._moved(there - places.keys(), places) if there - places.keys() else {}
        names = {places[place]: place for place in touched if place in places and place in there}
        names |= self._held_up(names, places)
        ranked = sorted(names | moved, key=self._rank)
        news: list[str] = []
        for name in ranked:
            place = moved.get(name) or names[name]
            told = touched.get(place, (place, time.perf_counter()))
            news += await self._guarded(self._reload, name, place, *told)
        fresh = there - places.keys() - set(moved.values()) - self._aside
        if fresh and self._load_new:
            news += await self._guarded(self._load, fresh, touched)
        if news and self._load_new:
            await self._guarded(self._load_needing, news, touched)
        gone = [name for place, name in places.items() if place in touched and place not in there]
        if set(gone) - moved.keys():
            await anyio.sleep(GRACE)
            await self._guarded(self._unload, gone)
            if self._short and self._load_new:
                await self._guarded(self._load_needing, [], touched)

    def _held_up(self, names: Collection[str], places: Mapping[Path, str]) -> dict[str, Path]:
        """Return what has failed and would bring some plugins along: these may be why it did."""
        return {
            places[place]: place
            for place in self._failed.keys() & places.keys()
            if not self._with(places[place]).isdisjoint(names)
        }

    def _with(self, name: str) -> set[str]:
        """Return the plugins that need one, so that they reload with it."""
        found, pending = set[str](), [name]
        while pending:
            above = {one.name for one in self._context.kernel.dependents(pending.pop())} - found
            found |= above
            pending += above
        return found

    def _try_again(self, name: str) -> None:
        """Look again at what has failed because of a plugin that is another one now."""
        places = self._host.places()
        for place in self._failed.keys() & places.keys():
            refused = place in self._refused and name in self._with(places[place])
            if refused or name in self._needed(place):
                del self._failed[place]
                self._touch(place)

    def _needed(self, place: Path) -> set[str]:
        """Return what the plugin of a file or folder says now that it needs."""
        try:
            return _needs(self._context.use("discovery").find(place))
        except VekoError:
            return set()

    async def _guarded(self, step: Callable[..., Any], *args: Any) -> list[str]:
        try:
            done: list[str] = await step(*args)
        except Exception as error:  # a plugin folder that cannot be read, say
            await self._context.kernel.bus.report(error, owner=self._context.name, handler="reload")
            return []
        return done

    def _runs(self, name: str) -> bool:
        record = self._context.kernel.get(name)
        return record is not None and record.loaded

    def _rank(self, name: str) -> int:
        record = self._context.kernel.get(name)
        return 0 if record is None else record.rank

    def _moved(self, new: Collection[Path], places: Mapping[Path, str]) -> dict[str, Path]:
        """Return the plugins whose file has another name now; they are looked for there."""
        gone = {name for place, name in places.items() if not file_of(place).is_file()}
        found: dict[str, Path] = {}
        for place in new if gone else ():
            try:
                source: Source = self._context.use("discovery").find(place)
            except VekoError:
                continue
            if source.outline is not None and source.name in gone:
                self._host.relocate(source.name, source)
                found[source.name] = place
        return found

    async def _reload(self, name: str, place: Path, path: Path, begin: float) -> list[str]:
        """Reload a plugin if its files hold something else; returns it if its version has changed.

        What that fails with was reported by who failed.
        """
        news: list[str] = []
        async with self._turns.alone(place):
            record, runs = self._context.kernel.get(name), self._host.content(name)
            if record is None or not self._runs(name) or runs is None:
                return news
            now = await content_now(place, runs)
            changed = self._counting(differing(runs, now))
            whole = await self._with_all(name, now)
            tried = (self._failed.get(place), whole), (self._host.rejected(name), now)
            if not changed or any(a is not None and not differing(a, b) for a, b in tried):
                return news
            before = record.version
            self._refused.discard(place)
            self._failed[place] = whole
            try:
                await self._host.reload(name, None, drained=False)
            except Exception as error:
                if isinstance(error, DependencyError):
                    self._refused.add(place)
                still = f"version {record.version} goes on" if self._runs(name) else "it is down"
                self._context.log("warning", f"failed {name}: {error} ({still})")
                return news
            except anyio.get_cancelled_exc_class():
                self._failed.pop(place, None)
                self._context.log("warning", f"gave up on {name}: its files have changed again")
                raise
            self._failed.pop(place, None)
            self._try_again(name)
            await self._tell("reloaded", record, path, begin)
            if record.version != before:
                news.append(name)
        return news

    async def _with_all(self, name: str, now: Content) -> Content:
        """Return what the files of a plugin and of all that reload with it hold."""
        above, whole = self._with(name), dict(now)
        for place, one in self._host.places().items():
            if one in above:
                whole |= await content_now(place, self._host.content(one) or {})
        return whole

    async def _load(
        self, new: Collection[Path], touched: Mapping[Path, Any], again: bool = False
    ) -> list[str]:
        """Load what is not loaded; returns what is now."""
        news: list[str] = []
        async with AsyncExitStack() as stack:
            wanted: dict[Path, Content] = {}
            for place in sorted(new):
                await stack.enter_async_context(self._turns.alone(place))
                now = await content_now(place, {})
                if again or differing(self._failed.get(place, {}), now):
                    wanted[place] = now
            if not wanted:
                return news
            self._failed |= wanted
            report = await self._host.load_all(wanted, retries=0)
            for name, error in {**report.failed, **report.skipped}.items():
                self._context.log("warning", f"failed {name}: {error}")
            hopeless = [e for e in report.failed.values() if not isinstance(e, DependencyError)]
            if len(report.loaded) + len(hopeless) < len(wanted):  # or its name is still taken
                self._short.update(wanted)
            for place, name in self._host.places().items():
                record = self._context.kernel.get(name)
                if place in wanted and record is not None and record.loaded:
                    self._failed.pop(place, None)
                    self._try_again(name)
                    await self._tell("loaded", record, *touched.get(place, (place, None)))
            self._tell_of_copies(wanted)
            news += report.loaded
        return news

    def _tell_of_copies(self, places: Iterable[Path]) -> None:
        discovery = self._context.use("discovery")
        for place in places:
            with contextlib.suppress(VekoError):
                name = discovery.find(place).name
                for other in self._places_of(name):
                    if other != place:
                        self._context.log(
                            "warning", f"{place} is not loaded: {name} runs from {other}"
                        )

    async def _load_needing(self, news: Collection[str], touched: Mapping[Path, Any]) -> list[str]:
        """Load what could not be because it needs what is there only now."""
        needed, waiting = set(news), self._short - self._host.places().keys()
        self._short.clear()
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
        known = self._host.places().keys() | self._aside
        return [source for source in found.sources if source.path not in known]

    async def _unload(self, gone: Iterable[str]) -> list[str]:
        """Unload plugins whose files are gone, those that need others first."""
        kernel = self._context.kernel
        for name in sorted(gone, key=self._rank, reverse=True):
            places = self._places_of(name)
            if not places:
                continue
            place = places[0]
            if file_of(place).is_file() or self._is_elsewhere(name):
                self._touch(place)
                continue
            async with self._turns.alone(place):
                self._leaving.add(name)
                try:
                    await kernel.unload(name)
                except NotFoundError:
                    pass  # somebody was faster
                except DependencyError as error:
                    self._overdue[name] = place
                    self._context.log("warning", f"{name} goes on though it is gone: {error}")
                except Exception as error:
                    await kernel.bus.report(error, owner=kernel.get(name), handler="reload")
                else:
                    self._context.log("success", f"unloaded {name}: its files are gone")
                finally:
                    self._leaving.discard(name)
        return []

    def _is_elsewhere(self, name: str) -> bool:
        """Tell whether another file is the plugin now; it is looked for there next time."""
        try:
            source: Source = self._context.use("discovery").find(name)
        except VekoError:
            return False
        if source.path is None or not file_of(source.path).is_file():
            return False
        self._host.relocate(name, source)
        self._failed.pop(source.path, None)
        self._touch(source.path)
        return True

    async def _tell(self, what: str, record: PluginRecord, path: Path, begin: float | None) -> None:
        took = "" if begin is None else f" in {(time.perf_counter() - begin) * 1000:.0f} ms"
        self._context.log("success", f"{what} {record.name} {record.version}{took}")
        await self._context.kernel.bus.emit("dev:hotreload", record.name, path)

    def _counting(self, changed: Collection[Path]) -> set[Path]:
        """Return those that people save and want to see."""
        watch = self._context.use("watch")
        counting = {path for path in changed if not watch.ignores(path)}
        for path in self._noise.found(counting):
            counting.discard(path)
            watch.unwatch(glob.escape(path.as_posix()))
            self._context.log(
                "warning",
                f"{path} changes all the time and is watched no more: keep what a plugin writes "
                "outside its folder, or name it in watch_ignore",
            )
        return counting


def file_of(place: Path) -> Path:
    """Return the file that is imported for a plugin's file or folder."""
    return place if place.suffix == ".py" else place / "__init__.py"


def _needs(source: Source) -> set[str]:
    """Return the names of the plugins that a source says it needs."""
    dependencies = source.outline.dependencies if source.outline is not None else ()
    found: set[str] = set()
    for text in dependencies:
        with contextlib.suppress(ValueError):  # loading it says what is wrong
            found.add(Requirement.parse(text).name)
    return found


def _is_begun(place: Path) -> bool:
    """Tell whether somebody has emptied a file to write it, and has not done so yet."""
    try:
        return file_of(place).stat().st_size == 0
    except OSError:
        return False

"""Making what runs be what lies on disk: changed plugins reload, new ones load, deleted ones go.

What SIGHUP asks for. Each step is a reload, load or unload as any other, so requests under way are
not harmed and a plugin that cannot be had in its new state stays in its old one. Changed means
that the content differs from what the running generation was imported from, never that a time
does. Settings files are compared too: what they say counts from the next start on.

Cost: every plugin is read once, in a thread.
Promise: one refresh at a time; one that fails leaves all others done; no error is raised, each is
in the outcome.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import anyio.to_thread
import msgspec

from veko import PluginRecord

from .._source.content import content_now, differing
from .._source.source import Source
from ..options import settings_of

if TYPE_CHECKING:
    from ..discovery import Found
    from ..manager import PluginManager

__all__ = ["Refreshed", "Refresher"]

Tell = Callable[[str], object]


class Refreshed(msgspec.Struct, kw_only=True):
    """What a refresh came to.

    Attributes:
        reloaded: Plugins that have a new generation.
        loaded: Plugins that are new.
        unloaded: Plugins whose files are gone.
        failed: What could not be done, and why; a plugin that ran before runs on as it was.
        later: Settings that changed and count from the next start on.
        faults: What is wrong with the settings files.
    """

    reloaded: list[str] = []
    loaded: list[str] = []
    unloaded: list[str] = []
    failed: dict[str, str] = {}
    later: list[str] = []
    faults: list[str] = []


class Refresher:
    """Refreshes a manager; it must be made before the settings files change.

    Args:
        manager: The manager; it runs when `refresh` is called.
        tell: Called with a line for each outcome, as it comes.
    """

    def __init__(self, manager: PluginManager, tell: Tell | None = None) -> None:
        self._manager = manager
        self._tell = tell or _nothing
        self._lock = asyncio.Lock()
        self._settings, _ = settings_of(manager.options.directory)

    async def refresh(self) -> Refreshed:
        """Look at the disk again; a second call waits for the first."""
        async with self._lock:
            result = Refreshed()
            self._compare_settings(result)
            discovery = self._manager.use("discovery")
            found: Found = await anyio.to_thread.run_sync(discovery.scan)
            changed, gone = await self._sort(found)
            # What one of them needs, another step may bring: hence a second try in the end.
            reload = functools.partial(self._reload, changed)
            again = await self._each(changed, reload, result)
            left = await self._each(reversed(gone), self._unload, result)
            if self._manager.options.auto_load:
                await self._load_new(result)
            await self._each(again, reload, result)
            await self._each(left, self._unload, result)
            for name, why in result.failed.items():
                runs = self._manager.get_plugin(name) is not None
                self._tell(f"failed   {name}: {why}{' (the one before runs on)' if runs else ''}")
            if not any((result.reloaded, result.loaded, result.unloaded, result.failed)):
                self._tell("nothing  has changed")
            return result

    async def _sort(self, found: Found) -> tuple[dict[str, Source | None], list[str]]:
        """Return what changed, with its new place if it has one, and what is gone.

        Both are in order of arrival: what others need comes first.
        """
        places = {source.name: source for source in reversed(found.sources)}
        changed: dict[str, Source | None] = {}
        gone: list[str] = []
        for record in self._records():
            loaded = self._manager._loading.loaded(record.name)
            if loaded is None or loaded.source.path is None or loaded.source.file is None:
                continue  # given as an object, or of an installed distribution
            if loaded.source.file.exists():
                now = await content_now(loaded.source.path, loaded.content)
                if differing(loaded.content, now):
                    changed[record.name] = None
            elif record.name in places:
                changed[record.name] = places[record.name]
            else:
                gone.append(record.name)
        return changed, gone

    def _records(self) -> list[PluginRecord]:
        return [r for r in self._manager.kernel.records() if r.loaded and not r.core]

    async def _each(
        self,
        names: Iterable[str],
        step: Callable[[str, Refreshed], Awaitable[None]],
        result: Refreshed,
    ) -> list[str]:
        """Do a step for each; returns those that failed."""
        failed: list[str] = []
        for name in names:
            try:
                await step(name, result)
            except Exception as error:
                result.failed[name] = str(error)
                failed.append(name)
            else:
                result.failed.pop(name, None)
        return failed

    async def _reload(
        self, places: Mapping[str, Source | None], name: str, result: Refreshed
    ) -> None:
        loading, place = self._manager._loading, places[name]
        before = loading.origin(name)
        if place is not None:
            loading.relocate(name, place)
        try:
            record = await self._manager.reload_plugin(name)
        except BaseException:
            if before is not None:
                loading.relocate(name, before)
            raise
        result.reloaded.append(name)
        self._tell(f"reloaded {name} {record.version}")

    async def _unload(self, name: str, result: Refreshed) -> None:
        await self._manager.unload_plugin(name)
        result.unloaded.append(name)
        self._tell(f"unloaded {name}: its files are gone")

    async def _load_new(self, result: Refreshed) -> None:
        report = await self._manager.load_all_plugins()
        for name in report.loaded:
            result.loaded.append(name)
            record = self._manager.get_plugin(name)
            self._tell(f"loaded   {name} {record.version if record else ''}".rstrip())
        for name, why in {**report.failed, **report.skipped}.items():
            result.failed.setdefault(name, str(why))

    def _compare_settings(self, result: Refreshed) -> None:
        now, result.faults = settings_of(self._manager.options.directory)
        for fault in result.faults:
            self._tell(f"settings {fault}; they stay as they are")
        if result.faults:
            return
        before = self._settings
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                result.later.append(key)
                self._tell(f"settings {key} has changed: it counts from the next start on")


def _nothing(line: str) -> None:
    """Nobody wants to know."""

"""Refreshing: changed plugins reload, new ones load, and those without files are unloaded.

SIGHUP asks for it. Each step is an ordinary reload, load or unload, so requests under way are not
harmed, and if a new version fails to load, the old one keeps running. Settings files are compared
too; a change there takes effect at the next start.

Cost: every plugin is read once, in a thread.
Promise: one refresh runs at a time. A step that fails stops no other one; no error is raised, each
is in the outcome.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping

import anyio.to_thread
import msgspec

from veko import Kernel
from veko.errors import NotFoundError

from .._source.loading import Loading
from .._source.source import Source
from ..options import Options, settings_of
from .differences import changed_files, survey

__all__ = ["Refreshed", "Refresher"]

Report = Callable[[str], object]


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a refresh.

    Attributes:
        reloaded: Plugins that have a new generation.
        loaded: Plugins that are new.
        unloaded: Plugins whose files are gone.
        failed: The reason by plugin; a plugin that ran before keeps running as it was.
        skipped: Those of them with which nothing is wrong but what they need.
        later: Settings that changed and take effect at the next start.
        faults: What is wrong with the settings files.
    """

    reloaded: list[str] = []
    loaded: list[str] = []
    unloaded: list[str] = []
    failed: dict[str, str] = {}
    skipped: dict[str, str] = {}
    later: list[str] = []
    faults: list[str] = []


class Refresher:
    """Refreshes a running application; make it before the settings files change.

    Args:
        kernel: The manager's kernel; it runs when `refresh` is called.
        options: The manager's options.
        report: Called with a line for each outcome, as it comes.
    """

    def __init__(
        self, kernel: Kernel, options: Options, report: Report = lambda line: None
    ) -> None:
        self._kernel = kernel
        self._options = options
        self._report = report
        self._lock = asyncio.Lock()
        self._settings, _ = settings_of(options.directory)

    async def refresh(self) -> Refreshed:
        """Look at the disk again; a second call waits for the first."""
        async with self._lock:
            result = Refreshed()
            self._compare_settings(result)
            loading: Loading = self._kernel.use("loading")
            changed, gone = await self._differences(loading)
            # What one plugin needs, a later step may bring: hence a second try at the end.
            reload = functools.partial(self._reload, loading, changed)
            failed = await self._each(changed, reload, result)
            staying = await self._each(reversed(gone), self._unload, result)
            if self._options.auto_load:
                await self._load_new(loading, result)
            await self._each(failed, reload, result)
            await self._each(staying, self._unload, result)
            for name, why in result.failed.items():
                record = self._kernel.get(name)
                runs = record is not None and record.loaded
                # A failure, unlike a missing dependency, is in the log: it is not printed twice.
                reason = f": {why}" if name in result.skipped else ""
                still = " (the old one keeps running)" if runs else ""
                self._report(f"failed   {name}{reason}{still}")
            if not any((result.reloaded, result.loaded, result.unloaded, result.failed)):
                self._report("nothing  has changed")
            return result

    async def _differences(self, loading: Loading) -> tuple[dict[str, Source | None], list[str]]:
        """Return which plugins changed, with their new source if they moved, and which are gone.

        Both are in order of arrival: a plugin comes after those that it needs.
        """
        discovery = self._kernel.use("discovery")
        found = await anyio.to_thread.run_sync(discovery.scan)
        paths = {source.path for source in found.sources if source.path is not None}
        seen = survey(self._kernel, loading, paths | loading.locations().keys())
        changed: dict[str, Source | None] = {}
        gone: list[str] = []
        for name in (record.name for record in self._kernel.records()):
            if name in seen.moved:
                changed[name] = seen.moved[name]
            elif name in seen.present:
                looked = await changed_files(loading, name, seen.present[name])
                if looked is not None and looked[1]:
                    changed[name] = None
            elif name in seen.gone:
                gone.append(name)
        return changed, gone

    async def _each(
        self,
        names: Iterable[str],
        step: Callable[[str, Refreshed], Awaitable[None]],
        result: Refreshed,
    ) -> list[str]:
        """Do a step for each plugin; returns those that failed."""
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
        self, loading: Loading, sources: Mapping[str, Source | None], name: str, result: Refreshed
    ) -> None:
        before, source = loading.origin(name), sources[name]
        if source is not None:
            loading.relocate(name, source)
        try:
            record = await loading.reload_plugin(name)
        except BaseException:
            if before is not None:
                loading.relocate(name, before)
            raise
        result.reloaded.append(name)
        self._report(f"reloaded {name} {record.version}")

    async def _unload(self, name: str, result: Refreshed) -> None:
        try:
            await self._kernel.unload(name)
        except NotFoundError:
            return  # it was unloaded meanwhile
        result.unloaded.append(name)
        self._report(f"unloaded {name}: its files are gone")

    async def _load_new(self, loading: Loading, result: Refreshed) -> None:
        report = await loading.load_all()
        for name in report.loaded:
            result.loaded.append(name)
            record = self._kernel.get(name)
            self._report(f"loaded   {name} {record.version if record else ''}".rstrip())
        for name, why in {**report.failed, **report.skipped}.items():
            result.failed.setdefault(name, str(why))
        result.skipped.update(report.skipped)

    def _compare_settings(self, result: Refreshed) -> None:
        now, faults = settings_of(self._options.directory)
        result.faults.extend(faults)
        for fault in result.faults:
            self._report(f"settings {fault}; the settings stay as they are")
        if result.faults:
            return
        before = self._settings
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                result.later.append(key)
                self._report(f"settings {key} has changed: restart to apply it")

"""Loading everything that is found: scan, put in order, load side by side, report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from veko import Context, Manifest
from veko.errors import ManifestError, VekoError

from .._source.source import Form, Outline, Source
from ..reports import LoadReport
from .collector import seldom_collected
from .imports import Imported, Imports
from .plugin_checks import PluginChecks
from .required_sources import says_required

if TYPE_CHECKING:
    from ..config import Config
    from ..dependencies import Dependencies, Plan
    from ..discovery import Found

__all__ = ["LoadAll"]

AT_ONCE: Final = 8
"""How many plugins begin to load in one turn of the event loop: some 4 ms."""


class LoadAll:
    """One run over all that is found; each plugin loads as soon as what it needs is there.

    Args:
        context: The context of the core plugin `loading`.
        imports: Imports the sources that do not tell their manifest.
        checks: Tells what else is wrong with plugins whose dependencies cannot be met.
        load: Loads one plugin, with its import if it was imported already.
        make: Imports a source; a failure is reported.
    """

    def __init__(
        self,
        context: Context,
        imports: Imports,
        checks: PluginChecks,
        load: Callable[[str, Imported | None, Form | Source], Awaitable[None]],
        make: Callable[[Source], Awaitable[Imported]],
    ) -> None:
        self._context = context
        self._imports = imports
        self._checks = checks
        self._load = load
        self._make = make
        # The plugins that are being imported, and what is set then if another one waits for it.
        self._coming: dict[str, anyio.Event | None] = {}
        self._ahead: dict[str, Imported | Exception] = {}
        self._report = LoadReport()
        self._sources: dict[str, tuple[Form | Source, Imported | None]] = {}
        self._seen: set[str] = set()  # what was considered in an earlier round
        self._required: set[str] = set()

    async def run(
        self, among: Collection[Path] | None, also: Mapping[str, Form | Source] | None = None
    ) -> LoadReport:
        """Load what is found, or what lies in some files and folders, and is not loaded.

        Args:
            among: The files and folders; `None` for all.
            also: What else to load, by name: plugins in other forms, or from elsewhere.
        """
        discovery = self._imports.discovery
        before: frozenset[str] = frozenset()
        described: dict[str, Manifest | Outline] = {}
        while True:
            suffixes = frozenset(discovery.suffixes())
            found = discovery.scan()
            await self._report_problems(found, among)
            wanted = await self._wanted(found, among, also or {}, suffixes - before)
            await self._import_ahead(wanted)
            for name, origin in wanted:
                manifest = await self._describe(name, origin)
                if manifest is not None:
                    described[manifest.name] = manifest
            plan = self._plan(described.values())
            with seldom_collected():
                async with anyio.create_task_group() as group:
                    await self._start_ready(group, plan)
            before = suffixes
            if suffixes >= frozenset(discovery.suffixes()):
                break
            # A transpiler was loaded. What lacked a plugin may find it in another language now.
            left = (*plan.faults, *plan.skipped)
            described = {name: described[name] for name in left}
        for name, origin in (also or {}).items():
            if _key(name, origin) not in self._seen and isinstance(origin, Source):
                await self._find_again(name, origin)  # which reports that it is none
        await self._report_left(plan)
        for line in discovery.passed_over():
            self._context.log("warning", line)
        discovery.forget()
        self._note_required(found)
        return self._report

    async def _wanted(
        self,
        found: Found,
        among: Collection[Path] | None,
        also: Mapping[str, Form | Source],
        new: Collection[str],
    ) -> list[tuple[str, Form | Source]]:
        """Return what is to be loaded, and was not considered in an earlier round.

        Args:
            found: What is found now.
            among: The files and folders that count; `None` for all.
            also: What else to load, by name.
            new: The suffixes that there were not in the round before; among others than `.py`.
        """
        later = tuple(new) if self._seen else ()
        wanted: list[tuple[str, Form | Source]] = [
            (source.name, source)
            for source in found.sources
            if among is None or source.path in among or str(source.path).endswith(later)
        ]
        known = {str(origin) for _, origin in wanted} | self._seen
        for name, origin in also.items():
            if not isinstance(origin, Source):
                wanted.append((name, origin))
            elif not (str(origin) in known or name in self._report.failed or self._later(origin)):
                again = await self._find_again(name, origin)
                wanted += [(name, again)] if again is not None else []
        fresh = [one for one in wanted if _key(*one) not in self._seen]
        self._seen.update(_key(*one) for one in fresh)
        return fresh

    def _later(self, source: Source) -> bool:
        """Return whether a source is in a language that only a transpiler makes importable."""
        path = source.path
        return path is not None and path.is_file() and not self._imports.discovery.file_of(path)

    def _note_required(self, found: Found) -> None:
        """List the plugins that are required, and have requests refused if they did not load."""
        report, kernel = self._report, self._context.kernel
        for name in (*report.loaded, *report.failed):
            record = kernel.get(name)
            if record is not None and record.manifest.required:
                self._required.add(name)
        paths = {problem.name: problem.path for problem in found.problems}
        paths |= {source.name: source.path for source in found.sources}
        for name, (source, _) in self._sources.items():
            paths[name] = source.path if isinstance(source, Source) else None
        missing = [
            name
            for name in (*report.failed, *report.skipped)
            if name in self._required or says_required(paths.get(name, Path(name)))
        ]
        report.required.extend(name for name in report.loaded if name in self._required)
        report.required.extend(missing)
        http = kernel.registry.get("service", "http")
        if missing and http is not None:
            http.value.required.miss(missing)

    async def _report_problems(self, found: Found, among: Collection[Path] | None) -> None:
        for problem in found.problems:
            if among is not None and problem.path not in among:
                continue
            if f"{problem.path}!" in self._seen:
                continue
            self._seen.add(f"{problem.path}!")
            if self._is_off(problem.name):
                continue
            taken = problem.name in self._report.failed or any(
                problem.name == source.name for source in found.sources
            )
            await self._failed(str(problem.path) if taken else problem.name, problem.error)

    async def _find_again(self, name: str, source: Source) -> Source | None:
        """Return a source as its files are now; `None` if they are gone or are no plugin."""
        if source.path is None:
            return source
        try:
            return self._imports.discovery.find(source.path)
        except VekoError as error:
            await self._failed(name, error)
            return None

    async def _import_ahead(self, wanted: Collection[tuple[str, Form | Source]]) -> None:
        """Start the scripts side by side that have to be started to know what they are."""

        async def make(key: str, source: Source) -> None:
            try:
                self._ahead[key] = await self._imports.make(source)
            except Exception as error:
                self._ahead[key] = error  # `_describe` reports it

        async with anyio.create_task_group() as group:
            for name, source in wanted:
                if not isinstance(source, Source) or source.kind != "script":
                    continue
                if source.outline is None and not self._is_off(name):
                    group.start_soon(make, _key(name, source), source)

    async def _describe(self, name: str, source: Form | Source) -> Manifest | Outline | None:
        """Return what an origin says of its plugin; `None` if that is loaded or cannot be."""
        described: Manifest | Outline | None = None
        imported: Imported | None = None
        if self._is_off(name):
            return None
        if isinstance(source, Source):
            described = source.outline
        if described is None:  # only running it tells its manifest
            try:
                ahead = self._ahead.pop(_key(name, source), None)
                if isinstance(ahead, Exception):
                    raise ahead
                imported = ahead or await self._imports.make(source)
            except Exception as error:
                await self._failed(name, error)
                return None
            described = imported.plugin.manifest
            if self._is_off(described.name):
                self._dispose(imported)
                return None
        record = self._context.kernel.get(described.name)
        if record is not None and record.loaded and not record.core:
            self._dispose(imported)
            return None
        if described.name in self._sources:
            self._dispose(imported)
            path = source.path if isinstance(source, Source) else None
            await self._failed(str(path or name), _found_twice(described.name, path))
            return None
        self._sources[described.name] = source, imported
        said = described.fields if isinstance(described, Outline) else {}
        if said.get("required") is True or getattr(described, "required", False):
            self._required.add(described.name)
        return described

    def _is_off(self, name: str) -> bool:
        """Return whether the settings leave a plugin out, and note it."""
        config: Config = self._context.use("config")
        why = config.why_off(name)
        if why is None:
            return False
        self._report.off[name] = why
        return True

    def _plan(self, manifests: Collection[Manifest | Outline]) -> Plan:
        """Put plugins in order."""
        active = {one.name: one.version for one in self._context.kernel.records() if one.active}
        failed = dict.fromkeys(self._report.failed, "failed to load")
        failed |= {name: f"is left out ({why})" for name, why in self._report.off.items()}
        dependencies: Dependencies = self._context.use("dependencies")
        return dependencies.plan(manifests, active, failed=failed)

    async def _report_left(self, plan: Plan) -> None:
        """Report the plugins whose dependencies cannot be met."""
        for name, fault in plan.faults.items():
            source, imported = self._sources[name]
            self._dispose(imported)
            if isinstance(source, Source):
                fault.path = fault.path or source.path
                await self._failed(name, self._checks.complete(fault, source))
            else:
                await self._failed(name, fault)
        for name, skipped in plan.skipped.items():
            self._report.skipped[name] = str(skipped)
            self._dispose(self._sources[name][1])

    async def _start_ready(self, group: anyio.abc.TaskGroup, plan: Plan) -> None:
        """Start to load each plugin that has all it needs; the end of one may make others ready."""

        async def load_one(name: str) -> None:
            source, imported = self._sources[name]
            try:
                if isinstance(source, Source):
                    imported = await self._arrive(name, source, imported)
                await self._load(name, imported, source)
            except Exception as error:  # was reported where it failed
                self._report.failed[name] = error
                plan.failed(name)
            else:
                self._report.loaded.append(name)
                plan.done(name)
            await self._start_ready(group, plan)

        for number, name in enumerate(plan.ready(), 1):
            group.start_soon(load_one, name)
            if number % AT_ONCE == 0:  # most loads never wait, and so run in one turn of the loop
                await anyio.lowlevel.checkpoint()

    async def _arrive(self, name: str, source: Source, made: Imported | None) -> Imported:
        """Import a plugin that is about to load.

        An import in another process takes its time. Those that come from there load in the order in
        which they were begun, so hooks of one priority run in the same order at each start
        (test_plugins_in_workers_load_in_order).
        """
        earlier = tuple(self._coming)
        self._coming[name] = None
        try:
            imported = made or await self._make(source)
            if imported.loaded is not None and imported.loaded.answered is not None:
                for one in earlier:
                    if one in self._coming:
                        arrived = self._coming[one] = self._coming[one] or anyio.Event()
                        await arrived.wait()
            return imported
        finally:
            awaited = self._coming.pop(name)
            if awaited is not None:
                awaited.set()

    def _dispose(self, imported: Imported | None) -> None:
        if imported is not None:
            self._imports.dispose(imported)

    async def _failed(self, name: str, error: Exception) -> None:
        self._report.failed[name] = error
        await self._context.kernel.bus.report(error, owner=name, handler="load")


def _key(name: str, origin: Form | Source) -> str:
    return str(origin) if isinstance(origin, Source) else name


def _found_twice(name: str, path: Path | None) -> ManifestError:
    return ManifestError(
        f"another plugin named {name!r} was found before",
        plugin=name,
        path=path,
        remedy="Rename one of the two.",
    )

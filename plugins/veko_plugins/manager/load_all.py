"""Loading everything that is found: scan, put in order, load side by side, report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from veko import Context, Manifest
from veko.errors import ManifestError

from .._source.source import Outline, Source
from ..reports import LoadReport
from .imports import Imported, Imports
from .plugin_checks import PluginChecks

if TYPE_CHECKING:
    from ..dependencies import Dependencies, Plan
    from ..discovery import Found

__all__ = ["LoadAll"]


class LoadAll:
    """One run over all that is found; each plugin loads as soon as what it needs is there.

    Args:
        context: The context of the core plugin `loading`.
        imports: Imports the sources that do not tell their manifest.
        checks: Tells what else is wrong with plugins whose dependencies cannot be met.
        load: Loads one source, with its import if it was imported already.
    """

    def __init__(
        self,
        context: Context,
        imports: Imports,
        checks: PluginChecks,
        load: Callable[[Imported | None, Source], Awaitable[None]],
    ) -> None:
        self._context = context
        self._imports = imports
        self._checks = checks
        self._load = load
        self._report = LoadReport()
        self._sources: dict[str, tuple[Source, Imported | None]] = {}

    async def run(self, among: Collection[Path] | None) -> LoadReport:
        """Load what is found, or what lies in some files and folders, and is not loaded."""
        discovery = self._imports.discovery
        found = discovery.scan()
        await self._report_problems(found, among)
        manifests = [
            manifest
            for source in found.sources
            if among is None or source.path in among
            if (manifest := await self._describe(source)) is not None
        ]
        plan = await self._plan(manifests)
        async with anyio.create_task_group() as group:
            self._start_ready(group, plan)
        for name, skipped in plan.skipped.items():
            self._report.skipped[name] = str(skipped)
            self._dispose(self._sources[name][1])
        discovery.forget()
        return self._report

    async def _report_problems(self, found: Found, among: Collection[Path] | None) -> None:
        for problem in found.problems:
            if among is not None and problem.path not in among:
                continue
            taken = problem.name in self._report.failed or any(
                problem.name == source.name for source in found.sources
            )
            await self._failed(str(problem.path) if taken else problem.name, problem.error)

    async def _describe(self, source: Source) -> Manifest | Outline | None:
        """Return what a source says of its plugin; `None` if that is loaded or cannot be."""
        described: Manifest | Outline | None = source.outline
        imported: Imported | None = None
        if described is None:  # only running it tells its manifest
            try:
                imported = await self._imports.make(source)
            except Exception as error:
                await self._failed(source.name, error)
                return None
            described = imported.plugin.manifest
        record = self._context.kernel.get(described.name)
        if record is not None and record.loaded and not record.core:
            self._dispose(imported)
            return None
        if described.name in self._sources:
            self._dispose(imported)
            await self._failed(str(source.path), _found_twice(described.name, source))
            return None
        self._sources[described.name] = source, imported
        return described

    async def _plan(self, manifests: Collection[Manifest | Outline]) -> Plan:
        """Put plugins in order, and report those whose dependencies cannot be met."""
        active = {one.name: one.version for one in self._context.kernel.records() if one.active}
        failed = dict.fromkeys(self._report.failed, "failed to load")
        dependencies: Dependencies = self._context.use("dependencies")
        plan = dependencies.plan(manifests, active, failed=failed)
        for name, fault in plan.faults.items():
            source, imported = self._sources[name]
            self._dispose(imported)
            fault.path = fault.path or source.path
            await self._failed(name, self._checks.complete(fault, source))
        return plan

    def _start_ready(self, group: anyio.abc.TaskGroup, plan: Plan) -> None:
        """Start to load each plugin that has all it needs; the end of one may make others ready."""

        async def load_one(name: str) -> None:
            source, imported = self._sources[name]
            try:
                await self._load(imported, source)
            except Exception as error:  # was reported where it failed
                self._report.failed[name] = error
                plan.failed(name)
            else:
                self._report.loaded.append(name)
                plan.done(name)
            self._start_ready(group, plan)

        for name in plan.ready():
            group.start_soon(load_one, name)

    def _dispose(self, imported: Imported | None) -> None:
        if imported is not None:
            self._imports.dispose(imported)

    async def _failed(self, name: str, error: Exception) -> None:
        self._report.failed[name] = error
        await self._context.kernel.bus.report(error, owner=name, handler="load")


def _found_twice(name: str, source: Source) -> ManifestError:
    return ManifestError(
        f"another plugin named {name!r} was found before",
        plugin=name,
        path=source.path,
        remedy="Rename one of the two.",
    )

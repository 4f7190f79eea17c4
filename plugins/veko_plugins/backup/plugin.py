"""The core plugin `backup`: saves an application's plugins in one file, and restores them.

A backup has every plugin's name, version and source, whether it was active, its configuration
without secrets, and the storage of all namespaces at one moment. Restoring first checks the file,
imports every plugin and checks its configuration; then the application's plugins stop, the storage
is exchanged in one transaction, and they start as saved in the backup. So a plugin that stores its
memory when it stops cannot overwrite what is restored.

Cost: a backup some 9 us an entry, in a thread, in bounded memory; a restore 15 to 30 us an entry,
and a stop and a start of every plugin. The loop is blocked for some milliseconds at a time (longer
by a single value of many megabytes).
Promise: a backup is written completely or not at all, and never overwrites a file. A restore
succeeds completely or has no effect: if any step fails, plugins, configurations, states and storage
are as before (and the error lists what could not be undone).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import anyio.to_thread
import msgspec

from veko import Context, NotFoundError, Plugin, PluginRecord, ServiceError, State, VekoError
from veko.extend import merge_config

from .._saved.documents import BackupError
from .._saved.plugins import (
    Exactly,
    SavedPlugin,
    completed_config,
    given_config,
    loaded_plugins,
    saved_plugins,
    written_paths,
)
from .._source.loading import Loading
from .file_format import Progress, Snapshot, Staged, read_backup, write_backup

__all__ = ["Backup", "RestoreReport"]

_Answer = TypeVar("_Answer")
_NAMES: Final = 10_000


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a restore; if there is one, everything was restored.

    Attributes:
        made_at: When the backup was made, in UTC.
        plugins: The plugins that were restored.
        others: Plugins that are not in the backup; they were restarted as they were.
        versions: Plugins of another version than in the backup: the backup's, and the current one.
        secrets_missing: Secrets that the current configuration lacks, by plugin.
    """

    made_at: datetime
    plugins: list[str] = []
    others: list[str] = []
    versions: dict[str, tuple[str, str]] = {}
    secrets_missing: dict[str, list[str]] = {}


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin as it is before a restore, or as it will be after it.

    Attributes:
        name: Its name.
        origin: What it is loaded from.
        given: Its configuration without defaults.
        active: Whether it is active.
    """

    name: str
    origin: Any
    given: dict[str, Any]
    active: bool


class Transfer(Protocol):
    """The service `transfer` of the storage."""

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]: ...
    def staging(self) -> AbstractAsyncContextManager[Staged]: ...
    async def exchange(self, staged: Staged, /) -> None: ...


class Backup(Plugin):
    """The service `backup`.

    Args:
        folder: The default folder for backups.
    """

    name = "backup"
    version = "2.0.0"
    description = "Saves and restores plugins, states, configurations and storage."
    core = True

    _context: Context
    _loading: Loading

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._changed: set[str] = set()

    def load(self, context: Context) -> None:
        """Provide the service; when the application stops, wait for it before plugins unload."""
        self._context = context
        self._stopping = False
        self._loading = context.use("loading")
        context.provide("backup", self)
        context.hook("app:stop", self.unload, priority=1_000, timeout=None)

    async def unload(self) -> None:
        """Wait for running work; what has not changed anything yet is aborted."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _to_completion(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Run it in a task of its own: it may unload its caller, and must not stop halfway."""
        task = asyncio.create_task(work, name="veko backup")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._log_failure)
            raise

    def _log_failure(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.log(
                "error", f"a backup or restore failed after its caller was cancelled: {error}"
            )

    def _progress(self, progress: Progress | None) -> Progress:
        """Return a function for threads that passes progress on, or raises if Veko stops."""
        loop = asyncio.get_running_loop()

        def report(lines: int) -> None:
            if self._stopping:
                raise BackupError(
                    "the application is stopping",
                    remedy="Nothing was changed; try again when it runs.",
                )
            if progress is not None:
                loop.call_soon_threadsafe(progress, lines)

        return report

    async def save(self, path: str | Path | None = None, progress: Progress | None = None) -> Path:
        """Write a backup; see `PluginManager.backup_plugins`.

        Args:
            path: The file, which must not exist; by default a name made of the time.
            progress: Called on the loop with the number of lines so far, from time to time.

        Returns:
            The file.

        Raises:
            BackupError: It cannot be written, or the application is stopping.
        """
        return await self._to_completion(self._save(None if path is None else Path(path), progress))

    async def _save(self, path: Path | None, progress: Progress | None) -> Path:
        report_lines = self._progress(progress)
        async with self._loading.lock, self._transfer().snapshot() as snapshot:
            plugins = saved_plugins(loaded_plugins(self._context))
            if path is not None:
                path = Path.cwd() / path
                await anyio.to_thread.run_sync(write_backup, path, plugins, snapshot, report_lines)
                return path
            stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            for number in range(1, _NAMES):
                path = self.folder / f"{stamp}{f'-{number}' if number > 1 else ''}.jsonl"
                if not path.exists():
                    break
            assert path is not None
            await anyio.to_thread.run_sync(write_backup, path, plugins, snapshot, report_lines)
            return path

    def _transfer(self) -> Transfer:
        try:
            service: Transfer = self._context.use("transfer")
        except ServiceError as error:
            raise BackupError(
                "the storage in use cannot be backed up or restored",
                remedy="Use one that provides the service `transfer`, as Veko's own does.",
            ) from error
        return service

    async def restore(self, path: str | Path, progress: Progress | None = None) -> RestoreReport:
        """Restore a backup; see `PluginManager.restore_plugins`.

        Args:
            path: The backup.
            progress: Called on the loop with the number of lines so far, from time to time.

        Raises:
            BackupError: It is not a valid backup, or a plugin in it is missing or does not accept
                its configuration. Nothing was changed.
            VekoError: A plugin did not stop or start; everything is as before, except for what
                the message lists.
        """
        return await self._to_completion(self._restore(Path.cwd() / path, progress))

    async def _restore(self, path: Path, progress: Progress | None) -> RestoreReport:
        report_lines = self._progress(progress)
        async with self._loading.lock, self._transfer().staging() as staged:
            read = functools.partial(read_backup, path, staged, report_lines)
            head, saved = await anyio.to_thread.run_sync(read)
            report = RestoreReport(made_at=head.made_at, plugins=list(saved))
            before = [self._part(record) for record in loaded_plugins(self._context)]
            after = await self._planned(path, saved, before, report)
            for part in after:
                if part.name in saved:
                    await self._check(part, path)
            report_lines(0)
            self._changed = {part.name for part in after}
            exchanged = False
            try:
                await self._stop_all()
                await self._transfer().exchange(staged)
                exchanged = True
                await self._start(after)
            except BaseException as error:
                await self._roll_back(error, before, staged if exchanged else None)
                raise
            for name, plugin in saved.items():
                record = self._context.kernel.get(name)
                if record is not None and record.version != plugin.version:
                    report.versions[name] = plugin.version, record.version
            return report

    def _part(self, record: PluginRecord) -> Part:
        origin = self._loading.origin(record.name) or record.plugin
        return Part(
            name=record.name, origin=origin, given=given_config(record), active=record.active
        )

    async def _planned(
        self,
        path: Path,
        saved: Mapping[str, SavedPlugin],
        before: list[Part],
        report: RestoreReport,
    ) -> list[Part]:
        """Return the plugins as they will be, in their current order; new ones last."""
        known = {part.name: part for part in before}
        missing: list[str] = []
        after: dict[str, Part] = dict(known)
        for name, plugin in saved.items():
            part = known.get(name)
            current: Mapping[str, Any]
            if part is None:
                try:
                    origin = await self._loading.find(name)
                except NotFoundError:
                    missing.append(name)
                    continue
                current = self._context.use("config").section(name)
            else:
                origin, current = part.origin, part.given
            try:
                given, secrets = completed_config(plugin, current)
            except ValueError as error:
                raise BackupError(
                    f"it is not a valid backup: the configuration of {name}: {error}",
                    path=path,
                    remedy="Use another backup.",
                ) from error
            if secrets:
                report.secrets_missing[name] = written_paths(secrets)
            after[name] = Part(name=name, origin=origin, given=given, active=plugin.active)
        if missing:
            raise BackupError(
                f"it has plugins that are not here: {', '.join(missing)}; nothing was changed",
                path=path,
                remedy="Add them first; if all are unknown, it is another application's backup.",
            )
        report.others.extend(name for name in known if name not in saved)
        return list(after.values())

    async def _check(self, part: Part, path: Path) -> None:
        """Import a plugin and check its configuration, before anything is changed."""
        try:
            async with self._loading.preview(part.origin) as plugin:
                record = PluginRecord(plugin, 0)
                config = merge_config(plugin.manifest.default_config, part.given)
                await self._context.kernel.bus.emit("config:validate", config, record, strict=True)
        except Exception as error:
            raise BackupError(
                f"it cannot be restored: {error}; nothing was changed",
                plugin=part.name,
                path=path,
                remedy="Fix the plugin, or add what its configuration lacks.",
            ) from error

    async def _stop_all(self) -> None:
        kernel = self._context.kernel
        for record in reversed(loaded_plugins(self._context)):
            if record.loaded:
                await kernel.unload(record.name, cascade=True)

    async def _start(self, parts: list[Part]) -> None:
        for part in parts:
            await self._loading.load_plugin(part.origin, Exactly(part.given))
        for part in reversed(parts):
            if not part.active:
                await self._context.kernel.toggle(part.name, False)

    async def _roll_back(
        self, error: BaseException, before: list[Part], staged: Staged | None
    ) -> None:
        """Undo a restore; what cannot be undone is added to the error."""
        notes: list[str] = []

        async def attempt(what: str, step: Callable[[], Coroutine[Any, Any, object]]) -> None:
            try:
                await step()
            except Exception as fault:
                notes.append(f"{what} could not be brought back: {fault}")

        kernel = self._context.kernel
        if staged is not None:
            for record in reversed(loaded_plugins(self._context)):
                force = functools.partial(kernel.unload, record.name, force=True)
                await attempt(record.name, force)
            await attempt("the storage", functools.partial(self._transfer().exchange, staged))
        here = {record.name for record in loaded_plugins(self._context)}
        for name in self._changed - here:
            failed = kernel.get(name)
            if failed is not None and failed.state is State.FAILED:
                kernel.forget(failed)  # otherwise it would stay in the load order before the others
        for part in before:
            if part.name not in here:
                load = functools.partial(
                    self._loading.load_plugin, part.origin, Exactly(part.given)
                )
                await attempt(part.name, load)
        for part in reversed(before):
            now = kernel.get(part.name)
            if now is not None and now.loaded and now.active != part.active:
                switch = functools.partial(kernel.toggle, part.name, part.active)
                await attempt(f"the state of {part.name}", switch)
        for note in notes:
            error.add_note(note)
            self._context.log("error", note)
        if notes and isinstance(error, VekoError):
            error.message += f"; {'; '.join(notes)}"

"""The core plugin `backup`: all of an application's plugins in one file, and back from it.

A backup has every plugin's name, version and source, whether it was on, its configuration without
secrets, and the storage of all namespaces as of one moment. Restoring checks the file and imports
and configures every plugin on trial first; then the plugins of the application stop, the storage is
exchanged in one transaction, and they start with what the backup says. Plugins that write their
memory down when they stop so cannot write over what is restored.

Cost: a backup some 9 us an entry, in a thread, in bounded memory; a restore 15 to 30 us an entry,
and a stop and a start of every plugin. The loop is held up for some milliseconds at a time (for
longer by a single value of many megabytes).
Promise: a backup is written whole or not at all and never over another file. A restore is done
whole or not at all: if any step fails, plugins, configurations, states and storage are as before
(and the error says if something could not be brought back).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio.to_thread
import msgspec

from veko import Context, NotFoundError, Plugin, PluginRecord, ServiceError, State, VekoError
from veko.extend import merge_config

from .._saved.documents import BackupError
from .._saved.plugins import (
    Exactly,
    Part,
    SavedPlugin,
    capture,
    dotted,
    given_of,
    standing,
    whole,
)
from .._source.loading import Loading
from .file_format import Progress, read_backup, write_backup

__all__ = ["Backup", "RestoreReport"]

_Answer = TypeVar("_Answer")
_NAMES: Final = 10_000


class RestoreReport(msgspec.Struct, kw_only=True):
    """What restoring a backup came to; that it came to an end means that all of it is restored.

    Attributes:
        made_at: When the backup was made, in UTC, as ISO 8601.
        plugins: The plugins that stand as in the backup.
        others: Plugins that the backup does not know; they started anew as they were.
        versions: Plugins of another version than in the backup: that one, and the one of now.
        secrets_missing: Secrets that are nowhere to be found now, by plugin.
    """

    made_at: str = ""
    plugins: list[str] = []
    others: list[str] = []
    versions: dict[str, tuple[str, str]] = {}
    secrets_missing: dict[str, list[str]] = {}


class Backup(Plugin):
    """The service `backup`.

    Args:
        folder: Where backups go by default.
    """

    name = "backup"
    version = "2.0.0"
    description = "Plugins, states, configurations and storage in one file, and back."
    core = True

    _context: Context
    _loading: Loading

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._concerned: set[str] = set()

    def load(self, context: Context) -> None:
        """Provide the service; what is under way ends before the plugins do."""
        self._context = context
        self._stopping = False
        self._loading = context.use("loading")
        context.provide("backup", self)
        context.hook("app:stop", self.unload, priority=1_000, timeout=None)

    async def unload(self) -> None:
        """End what is under way: what has not begun to change anything is given up."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _apart(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Do it in a task of its own: it may end who asked for it, and is not left half done."""
        task = asyncio.create_task(work, name="veko backup")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._unheard)
            raise

    def _unheard(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.log("error", f"nobody waits any more for what failed: {error}")

    def _tell(self, progress: Progress | None, loop: asyncio.AbstractEventLoop) -> Progress:
        def tell(lines: int) -> None:
            if self._stopping:
                raise BackupError("the application stops", remedy="Nothing was changed.")
            if progress is not None:
                loop.call_soon_threadsafe(progress, lines)

        return tell

    # -- out

    async def save(self, path: str | Path | None = None, progress: Progress | None = None) -> Path:
        """Write a backup; see `PluginManager.backup_plugins`.

        Args:
            path: Where; a name made of the time if left out.
            progress: Called on the loop with the number of lines so far, now and then.
        """
        return await self._apart(self._save(None if path is None else Path(path), progress))

    async def _save(self, path: Path | None, progress: Progress | None) -> Path:
        tell = self._tell(progress, asyncio.get_running_loop())
        async with self._loading.lock, self._transfer().snapshot() as snapshot:
            plugins = capture(standing(self._context))
            if path is not None:
                path = Path.cwd() / path
                await anyio.to_thread.run_sync(write_backup, path, plugins, snapshot, tell)
                return path
            stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            for number in range(1, _NAMES):
                path = self.folder / f"{stamp}{f'-{number}' if number > 1 else ''}.jsonl"
                if not path.exists():
                    break
            assert path is not None
            await anyio.to_thread.run_sync(write_backup, path, plugins, snapshot, tell)
            return path

    def _transfer(self) -> Any:
        try:
            return self._context.use("transfer")
        except ServiceError as error:
            raise BackupError(
                "the storage in use cannot be read as a whole or exchanged",
                remedy="It would have to provide the service `transfer`, as ours does.",
            ) from error

    # -- back

    async def restore(self, path: str | Path, progress: Progress | None = None) -> RestoreReport:
        """Restore a backup; see `PluginManager.restore_plugins`."""
        return await self._apart(self._restore(Path.cwd() / path, progress))

    async def _restore(self, path: Path, progress: Progress | None) -> RestoreReport:
        tell = self._tell(progress, asyncio.get_running_loop())
        async with self._loading.lock, self._transfer().staging() as staged:
            read = functools.partial(read_backup, path, staged, tell)
            head, saved = await anyio.to_thread.run_sync(read)
            report = RestoreReport(made_at=head.made_at, plugins=list(saved))
            before = [self._part(record) for record in standing(self._context)]
            after = await self._planned(path, saved, before, report)
            for part in after:
                if part.name in saved:
                    await self._try(part, path)
            tell(0)
            self._concerned = {part.name for part in after}
            exchanged = False
            try:
                await self._stop_all()
                await self._transfer().exchange(staged)
                exchanged = True
                await self._start(after)
            except BaseException as error:
                await self._back(error, before, staged if exchanged else None)
                raise
            for name, plugin in saved.items():
                record = self._context.kernel.get(name)
                if record is not None and record.version != plugin.version:
                    report.versions[name] = plugin.version, record.version
            return report

    def _part(self, record: PluginRecord) -> Part:
        origin = self._loading.origin(record.name) or record.plugin
        return Part(name=record.name, origin=origin, given=given_of(record), active=record.active)

    async def _planned(
        self,
        path: Path,
        saved: Mapping[str, SavedPlugin],
        before: list[Part],
        report: RestoreReport,
    ) -> list[Part]:
        """Return the plugins as they are to be, those that are here in their order."""
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
                given, secrets = whole(plugin, current)
            except ValueError as error:
                raise BackupError(
                    f"it is not what backup_plugins() writes: the configuration of {name}: {error}",
                    path=path,
                    remedy="Take another one.",
                ) from error
            if secrets:
                report.secrets_missing[name] = dotted(secrets)
            after[name] = Part(name=name, origin=origin, given=given, active=plugin.active)
        if missing:
            raise BackupError(
                f"it has plugins that are not here: {', '.join(missing)}; nothing was changed",
                path=path,
                remedy="Put them back first; if none is known, it is another application's.",
            )
        report.others += [name for name in known if name not in saved]
        return list(after.values())

    async def _try(self, part: Part, path: Path) -> None:
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
                remedy="Mend the plugin, or give what its configuration lacks.",
            ) from error

    async def _stop_all(self) -> None:
        kernel = self._context.kernel
        for record in reversed(standing(self._context)):
            if record.loaded:
                await kernel.unload(record.name, cascade=True)

    async def _start(self, parts: list[Part]) -> None:
        for part in parts:
            await self._loading.load_plugin(part.origin, Exactly(part.given))
        for part in reversed(parts):
            if not part.active:
                await self._context.kernel.toggle(part.name, False)

    async def _back(self, error: BaseException, before: list[Part], staged: Any) -> None:
        """Bring back what was; what cannot be is added to the error."""
        notes: list[str] = []

        async def attempt(what: str, step: Callable[[], Coroutine[Any, Any, object]]) -> None:
            try:
                await step()
            except Exception as fault:
                notes.append(f"{what} could not be brought back: {fault}")

        kernel = self._context.kernel
        if staged is not None:
            for record in reversed(standing(self._context)):
                force = functools.partial(kernel.unload, record.name, force=True)
                await attempt(f"what ran before {record.name}", force)
            await attempt("the storage", functools.partial(self._transfer().exchange, staged))
        here = {record.name for record in standing(self._context)}
        for name in self._concerned - here:
            failed = kernel.get(name)
            if failed is not None and failed.state is State.FAILED:
                kernel.forget(failed)  # it would have kept a place before the others
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

"""The core plugin `state`: saves which plugins are on, with what configuration, over a restart.

The state is in a file, `.veko/state.jsonl`, not in the storage: it is read before the storage
opens, it is about this host even if hosts share the storage, and restoring a backup of the storage
must not change it.

Cost: two fsyncs a save, in a thread; some 10 µs a plugin.
Promise: `kill -9` or a power cut at any moment leaves the complete old state or the complete new
one. Secrets are not in it; a restore takes them from the current configuration.
"""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import anyio.to_thread
import msgspec

from veko import Context, NotFoundError, Plugin, PluginRecord, VekoError
from veko.extend import Turns

from ._saved.documents import BackupError, Header, read_document, write_document
from ._saved.plugins import (
    Exactly,
    SavedPlugin,
    completed_config,
    given_config,
    header,
    loaded_plugins,
    read_plugins,
    saved_plugins,
    written_paths,
)
from ._source.loading import Loading
from ._source.source import Form, Source

__all__ = ["State", "StateReport"]

FORMAT: Final = "veko-state"
VERSION: Final = 1


class StateReport(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of restoring the state.

    Attributes:
        saved_at: When it was saved, in UTC.
        loaded: Plugins that were loaded.
        switched_on: Plugins that were switched on.
        switched_off: Plugins that were switched off.
        configured: Plugins that got the saved configuration, and with it a new generation.
        unchanged: Plugins that needed no change.
        missing: The reason by plugin, of those that are not found any more.
        failed: The reason by plugin, of those that could not be restored; they stay as they were.
        others: Loaded plugins that are not in the saved state; they stay as they are.
        secrets_missing: Secrets that the current configuration lacks, by plugin.
    """

    saved_at: datetime
    loaded: list[str] = []
    switched_on: list[str] = []
    switched_off: list[str] = []
    configured: list[str] = []
    unchanged: list[str] = []
    missing: dict[str, str] = {}
    failed: dict[str, str] = {}
    others: list[str] = []
    secrets_missing: dict[str, list[str]] = {}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugins.state]` in `veko.toml`.

    Attributes:
        restore: Restore the saved state at each start, if there is one.
        save: Save the state at each stop.
    """

    restore: Annotated[bool, msgspec.Meta(description="Restore at each start.")] = False
    save: Annotated[bool, msgspec.Meta(description="Save at each stop.")] = False


class State(Plugin):
    """The service `state`.

    Args:
        path: The file.
    """

    name = "state"
    version = "2.0.0"
    description = "Which plugins are on, with what configuration, over a restart."
    config_schema = Settings
    core = True

    _context: Context
    _loading: Loading

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, context: Context) -> None:
        """Provide the service; hook start and stop if the settings say so."""
        self._context = context
        self._loading = context.use("loading")
        context.provide("state", self)
        settings = msgspec.convert(context.config, Settings)
        if settings.restore:
            context.hook("app:init", self._at_start, priority=1_000, timeout=None)
        if settings.save:
            context.hook("app:stop", self._at_stop, priority=-1_000, timeout=None)

    async def _at_start(self) -> None:
        if self.path.exists():
            report = await self.restore()
            for name, why in {**report.missing, **report.failed}.items():
                self._context.log("warning", f"the state of {name} was not restored: {why}")

    async def _at_stop(self) -> None:
        await self.save()

    async def save(self) -> Path:
        """Save the state of the plugins; see `PluginManager.save_state`."""
        async with self._loading.lock:
            plugins, turns = list[SavedPlugin](), Turns()
            for record in loaded_plugins(self._context):
                if record.loaded:  # else it was unloaded meanwhile
                    plugins += saved_plugins([record])
                if turns.due:
                    await turns.pause()
            write = functools.partial(
                write_document, self.path, header(FORMAT, VERSION), plugins, replace=True
            )
            await anyio.to_thread.run_sync(write)
        return self.path

    async def restore(self) -> StateReport:
        """Restore the saved state of the plugins; see `PluginManager.restore_state`."""
        async with self._loading.lock:
            head, saved = await anyio.to_thread.run_sync(_read, self.path)
            report = StateReport(saved_at=head.made_at)
            report.others.extend(
                record.name for record in loaded_plugins(self._context) if record.name not in saved
            )
            for plugin in saved.values():  # a plugin comes after those that it needs
                await self._guarded(report, plugin, self._load_or_configure)
                if plugin.active:
                    await self._guarded(report, plugin, self._switch)
            for plugin in reversed(saved.values()):
                if not plugin.active:
                    await self._guarded(report, plugin, self._switch)
            changed = {*report.loaded, *report.switched_on, *report.switched_off}
            changed |= {*report.configured, *report.missing, *report.failed}
            report.unchanged.extend(name for name in saved if name not in changed)
            return report

    async def _guarded(self, report: StateReport, saved: SavedPlugin, step: Any) -> None:
        if saved.name in report.missing or saved.name in report.failed:
            return
        try:
            await step(report, saved)
        except (VekoError, ValueError) as error:
            report.failed[saved.name] = str(error)

    async def _load_or_configure(self, report: StateReport, saved: SavedPlugin) -> None:
        """Load or reload a plugin with its saved configuration."""
        record = self._record(saved.name)
        origin: Form | Source = saved.name
        if record is not None:
            current = given_config(record)
        else:
            try:
                origin = await self._loading.find(saved.name)
            except NotFoundError as error:
                was = "" if saved.source is None else f" It came from {saved.source}."
                report.missing[saved.name] = f"{error}{was}"
                return
            current = self._context.use("config").section(saved.name)
        given, missing = completed_config(saved, current)
        if missing:
            report.secrets_missing[saved.name] = written_paths(missing)
        if record is None:
            await self._loading.load_plugin(origin, Exactly(given))
            report.loaded.append(saved.name)
        elif given != current:
            await self._configure(record, given)
            report.configured.append(saved.name)

    async def _configure(self, record: PluginRecord, given: dict[str, Any]) -> None:
        """Reload a plugin with exactly this configuration; it stays as it is if that fails."""
        generation = record.current
        assert generation is not None
        before, generation.given = generation.given, {}  # it would be merged under the new one
        try:
            await self._loading.reload_plugin(record.name, given)
        except BaseException:
            generation.given = before
            raise
        if not given:  # an empty configuration is no change to the kernel
            await self._context.kernel.bus.emit("config:change", record.config, record)

    async def _switch(self, report: StateReport, saved: SavedPlugin) -> None:
        record = self._record(saved.name)
        if record is None or record.active == saved.active:
            return
        await self._context.kernel.toggle(saved.name, saved.active)
        (report.switched_on if saved.active else report.switched_off).append(saved.name)

    def _record(self, name: str) -> PluginRecord | None:
        record = self._context.kernel.get(name)
        return record if record is not None and record.loaded and not record.core else None


def _read(path: Path) -> tuple[Header, dict[str, SavedPlugin]]:
    if not path.exists():
        raise BackupError("no state was saved", path=path, remedy="Save one with save_state().")
    first, *rest = read_document(path, FORMAT, VERSION)
    try:
        saved = read_plugins(map(msgspec.json.decode, rest))
        return msgspec.json.decode(first, type=Header), saved
    except ValueError as error:
        raise BackupError(
            f"the file is not what save_state() writes: {error}",
            path=path,
            remedy="Remove it and save the state again.",
        ) from error

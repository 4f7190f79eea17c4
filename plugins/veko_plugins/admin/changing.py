"""The verbs that change: planned, applied in every worker or in none, kept, and undone."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import msgspec

from veko import NotFoundError, PluginRecord, StateError, VekoError
from veko.errors import text_of

from .._saved.overrides import Override, difference
from .configs import changed_paths, edited, given_of_record
from .documents import BackupRow, Change, Plan, Touched
from .history import Done, History
from .intents import Configure, Intent, Load, Reload, Restore, Toggle, Undo, Unload
from .peers import Peers
from .planning import Planner
from .reading import Reading
from .records import Errors, Logs
from .was import Past, Was

if TYPE_CHECKING:
    from veko import Context

__all__ = ["Changing"]

_log: Final = logging.getLogger("veko.admin")
_PYTHON: Final = "python"


class Changing(Reading):
    """What one can look at and change.

    Args:
        context: The context of the core plugin `admin`.
        directory: The application's directory.
        errors: The last failures.
        logs: The last log records.
        key: A key for the versions of configurations; the same in all workers.
        peers: The other workers; `None` for none.
    """

    def __init__(
        self,
        context: Context,
        directory: Path,
        errors: Errors,
        logs: Logs,
        *,
        key: bytes,
        peers: Peers | None = None,
    ) -> None:
        super().__init__(context, directory, errors, logs)
        self._key = key
        self._peers = peers or Peers(directory, alone=True)
        self._planner = Planner(context, key)
        self._past = Past(context)
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.history = History()

    # -- planning and applying

    async def plan(self, intent: Intent) -> Plan:
        """Return what a change would do; nothing is done.

        Raises:
            VekoError: It would be refused.
        """
        if isinstance(intent, Undo):
            done = self.history.get(intent.change)
            if done.backup is not None:
                return self._plan_restore(Path(done.backup).name, "undo", intent.change)
            self._check_unmoved(done)
            return self._past.plan(done.before, intent.change)
        if isinstance(intent, Restore):
            self._backup_path(intent.backup)
            return self._plan_restore(intent.backup, "restore", intent.backup)
        return await self._planner.plan(intent)

    async def apply(
        self, intent: Intent, *, who: str = _PYTHON, id: str | None = None, relayed: bool = False
    ) -> Change:
        """Do a change, in every worker or in none.

        It is done to its end even if the caller is cancelled.

        Args:
            intent: What to do.
            who: The caller as text, for the history.
            id: The id of the change; a new one by default.
            relayed: Whether another worker asks for its part of a change.

        Raises:
            VekoError: It was refused, and nothing has changed; or a step failed, and what was done
                before it has been undone.
        """
        task = asyncio.create_task(
            self._apply(intent, who, id or secrets.token_hex(6), relayed), name="veko admin"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _apply(self, intent: Intent, who: str, id: str, relayed: bool) -> Change:
        async with self._peers.alone(relayed), self._lock:
            plan = await self.plan(intent)
            intent = self._exact(intent)
            others = {} if relayed else await self._peers.others()
            for pid in others:
                await self._peers.plan(pid, intent)
            names = [one.name for one in plan.plugins] or [plan.target]
            reloads = any(one.step == "reload" for one in plan.plugins)
            before = self._past.of(names, code=reloads)
            backup = await self._done_here(intent, plan, before)
            applied: list[int] = []
            try:
                for pid in others:
                    await self._peers.apply(pid, intent, id, who)
                    applied.append(pid)
            except VekoError:
                await self._take_back(intent, before, backup, applied, id)
                raise
            change = Change(
                id=id,
                at=datetime.now(UTC),
                who=who,
                verb=plan.verb,
                target=plan.target,
                plan=plan,
                undoable=plan.undoable,
                why_not=plan.why_not,
                workers=(os.getpid(), *others),
            )
            after = self._past.of(names)
            self.history.add(Done(change=change, before=before, after=after, backup=backup))
            if isinstance(intent, Undo):
                self.history.undone(intent.change, id)
            return change

    async def _done_here(self, intent: Intent, plan: Plan, before: tuple[Was, ...]) -> Any:
        """Do a change in this process; if a step of it fails, undo those before it."""
        backup = None
        try:
            if isinstance(intent, Restore):
                backup = await self._restore_backup(self._backup_path(intent.backup))
            elif isinstance(intent, Undo):
                done = self.history.get(intent.change)
                if done.backup is not None:
                    backup = await self._restore_backup(Path(done.backup))
                else:
                    await self._past.restore(done.before)
                    await self._save_overrides()
            else:
                await self._do(intent)
                self._override(intent, plan)
                await self._save_overrides()
        except Exception as error:
            await self._as_before(before, error)
            raise
        return backup

    async def _do(self, intent: Load | Unload | Toggle | Reload | Configure) -> None:
        """Do one verb."""
        kernel, loading = self._kernel, self._need("loading")
        name = intent.plugin
        record = kernel.get(name)
        if isinstance(intent, Load):
            await loading.load_plugin(await self._planner.origin(name), intent.config)
        elif isinstance(intent, Unload):
            if record is not None and not record.loaded:
                kernel.forget(record)
            else:
                await kernel.unload(name, cascade=intent.cascade)
        elif isinstance(intent, Toggle):
            await self._toggle(intent, record)
        elif isinstance(intent, Reload):
            await loading.reload_plugin(name)
        else:
            assert record is not None
            given = edited(record, intent.path, intent.how, intent.value)
            if changed_paths(given_of_record(record), given):
                await kernel.update_config(name, given, exactly=True)
            if intent.reload:
                await loading.reload_plugin(name)

    async def _toggle(self, intent: Toggle, record: PluginRecord | None) -> None:
        name = intent.plugin
        if record is None or not record.loaded:
            if intent.active is not False:
                await self._need("loading").load_plugin(await self._planner.origin(name))
            return
        was_on = record.active
        is_on = await self._kernel.toggle(name, intent.active, cascade=intent.cascade)
        health = self._service("health")
        if health is not None and (was_on or not is_on):
            health.release(name)  # its breaker is not to switch it on again

    def _exact(self, intent: Intent) -> Intent:
        """Return an intent that means the same in every worker."""
        if isinstance(intent, Toggle) and intent.active is None:
            record = self._kernel.get(intent.plugin)
            active = record is None or not record.active
            return msgspec.structs.replace(intent, active=active)
        return (
            msgspec.structs.replace(intent, etag=None) if isinstance(intent, Configure) else intent
        )

    # -- what lasts over a restart

    def _override(self, intent: Intent, plan: Plan) -> None:
        """Take note of what is to hold from the next start on as well."""
        overrides = getattr(self._service("config"), "overrides", None)
        if overrides is None:
            return
        off: dict[str, str | None] = {}
        if isinstance(intent, Load):
            off[plan.target] = None
        elif isinstance(intent, Toggle):
            on = bool(intent.active)
            off = {one.name: None if on else "switched off" for one in plan.plugins}
            off.setdefault(plan.target, None if on else "switched off")
        elif isinstance(intent, Unload):
            off = {one.name: "unloaded" for one in plan.plugins}
        for name, why in off.items():
            overrides.put(name, msgspec.structs.replace(overrides.of(name), name=name, off=why))
        if isinstance(intent, Configure) or (isinstance(intent, Load) and intent.config):
            self._override_config(overrides, plan.target)

    def _override_config(self, overrides: Any, name: str) -> None:
        record = self._kernel.get(name)
        config = self._service("config")
        if record is None or record.core or config is None:
            return
        base = config.section(name, manifest=record.manifest, overridden=False)
        values, removed, unwritable = difference(base, given_of_record(record))
        if unwritable:
            paths = ", ".join(".".join(path) for path in unwritable)
            _log.warning("%s: these values do not last over a restart: %s", name, paths)
        overrides.put(
            name,
            Override(
                name=name,
                off=overrides.of(name).off,
                values=tuple(values),
                removed=tuple(removed),
            ),
        )

    async def _save_overrides(self) -> None:
        overrides = getattr(self._service("config"), "overrides", None)
        if overrides is not None:
            await anyio.to_thread.run_sync(overrides.write)

    # -- taking back

    def _check_unmoved(self, done: Done) -> None:
        """Refuse to undo a change over what somebody did since, past this service.

        Raises:
            StateError: The configuration of a plugin is not what the change left.
        """
        for was in done.after:
            record = self._kernel.get(was.name)
            if record is None or not record.loaded or not was.loaded:
                continue
            if changed_paths(given_of_record(record), was.given):
                raise StateError(
                    f"the configuration of {was.name} was changed meanwhile",
                    plugin=was.name,
                    remedy="Change it to what it is to be.",
                )

    async def _as_before(self, before: tuple[Was, ...], error: Exception) -> None:
        """Undo what was done of a change that has failed."""
        try:
            if self._past.plan(before, "").plugins:
                await self._past.restore(before)
            else:
                self._put_overrides(before)
            await self._save_overrides()
        except Exception as failure:
            _log.error(
                "a change failed (%s), and what was done of it could not be undone: %s",
                text_of(error),
                text_of(failure),
            )

    def _put_overrides(self, before: tuple[Was, ...]) -> None:
        overrides = getattr(self._service("config"), "overrides", None)
        if overrides is not None:
            for was in before:
                overrides.put(was.name, was.override)

    async def _take_back(
        self, intent: Intent, before: tuple[Was, ...], backup: Any, applied: list[int], id: str
    ) -> None:
        """Undo a change that another worker has refused, here and where it was done."""
        for pid in applied:
            try:
                await self._peers.apply(pid, Undo(id), f"{id}-back", "a worker that refused")
            except VekoError as error:
                _log.error("the worker %d could not take a change back: %s", pid, error)
        if backup is not None:
            try:
                await self._need("backup").restore(backup)
            except VekoError as failure:
                _log.error("%s could not be taken back: %s", intent, failure)
            return
        await self._as_before(before, StateError("another worker refused it"))

    # -- backups

    async def backup(self) -> BackupRow:
        """Make a backup in the folder of backups.

        Raises:
            BackupError: It cannot be written.
            StateError: There are no backups here.
        """
        path: Path = await self._need("backup").save()
        return next(row for row in self.backups() if row.name == path.name)

    def _backup_path(self, name: str) -> Path:
        """Return the file of a backup.

        Raises:
            NotFoundError: There is none of that name.
        """
        for row in self.backups():
            if row.name == name:
                return Path(row.path)
        raise NotFoundError(
            f"there is no backup {name[:100]!r}", remedy="`GET backups` lists them."
        )

    def _plan_restore(self, backup: str, verb: str, target: str) -> Plan:
        self._backup_path(backup)
        records = [r for r in self._kernel.records() if r.loaded and not r.core]
        return Plan(
            verb=verb,
            target=target,
            plugins=tuple(Touched(name=r.name, step="reload", version=r.version) for r in records),
            unknown=("routes", "hooks", "services", "commands"),
            warnings=(
                "all plugins stop and start again, and the storage becomes what it was then",
                "a backup of what is now is made before, which undo restores",
            ),
        )

    async def _restore_backup(self, path: Path) -> Path:
        """Make a backup of what is, and restore another one; return the new one."""
        service = self._need("backup")
        made: Path = await service.save()
        await service.restore(path)
        return made

    async def finish(self) -> None:
        """Wait for changes that are being done."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

"""Plans: what a change would do, found out without doing it.

A plan is made of what the kernel itself goes by: its registrations, its dependencies and its
checks. So what a plan refuses is refused then, too. What it cannot know, it says (`Plan.unknown`):
which routes and hooks a new version registers is decided by its `load()`, and hooks may refuse any
step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from veko import Manifest, NotFoundError, PluginRecord, StateError
from veko.errors import ConflictError
from veko.extend import merge_config

from .._lib.guards import guards
from .._source.source import Form, Source
from .configs import changed_paths, edited, etag_of, given_of_record
from .documents import Plan, Step, Touched
from .errors import AdminError
from .intents import Configure, Intent, Load, Reload, Toggle, Unload
from .listing import KINDS, Lines, difference_of, lines_declared, lines_of
from .rows import plugin_service

if TYPE_CHECKING:
    from veko import Context

__all__ = ["Planner"]

_NONE = Lines()


class Planner:
    """Plans changes of single plugins.

    Args:
        context: The context of the core plugin `admin`.
        key: A key for the versions of configurations.
    """

    def __init__(self, context: Context, key: bytes) -> None:
        self._kernel = context.kernel
        self._key = key

    async def plan(self, intent: Intent) -> Plan:
        """Return what a change would do.

        Raises:
            VekoError: It would be refused.
        """
        if isinstance(intent, Load):
            return await self.load(intent.plugin, intent.config)
        if isinstance(intent, Unload):
            return self.unload(intent)
        if isinstance(intent, Toggle):
            return await self.toggle(intent)
        if isinstance(intent, Reload):
            return await self.reload(intent.plugin)
        assert isinstance(intent, Configure)
        return await self.configure(intent)

    # -- the verbs

    async def load(self, plugin: str, config: Mapping[str, Any], verb: str = "load") -> Plan:
        """Plan loading a plugin that is found by name or path."""
        origin = await self.origin(plugin)
        loading = self._need("loading")
        async with loading.preview(origin) as made:
            manifest = made.manifest
            record = self._kernel.get(manifest.name)
            if record is not None and record.loaded:
                raise ConflictError(
                    f"a plugin named {manifest.name!r} is {record.state}",
                    plugin=manifest.name,
                    remedy="Reload it, or switch it on.",
                )
            loading.check(made)
            self._check_dependencies(manifest)
            self._check_config(manifest, config)
            declared = lines_declared(made)
        return Plan(
            verb=verb,
            target=manifest.name,
            plugins=(_touched(manifest.name, "load", manifest.version),),
            permissions=_growth(manifest.name, manifest.permissions, ()),
            warnings=self._not_kept(manifest.name),
            **_lines(_NONE, declared),
        )

    def unload(self, intent: Unload) -> Plan:
        """Plan unloading a plugin."""
        record = self.known(intent.plugin)
        if not record.loaded:
            return Plan(
                verb="unload",
                target=record.name,
                plugins=(_touched(record.name, "unload", record.version),),
            )
        leaving = self._leaving(record, "unload", cascade=intent.cascade)
        return Plan(
            verb="unload",
            target=record.name,
            plugins=tuple(_touched(one.name, "unload", one.version) for one in leaving),
            warnings=self._warnings(leaving),
            **_lines(lines_of(one for one in leaving if one.active), _NONE),
        )

    async def toggle(self, intent: Toggle) -> Plan:
        """Plan switching a plugin on or off."""
        record = self._kernel.get(intent.plugin)
        if record is None or not record.loaded:
            if intent.active is False:
                return Plan(
                    verb="toggle",
                    target=self._named(intent.plugin),
                    warnings=("it is not loaded, and stays so at the next start",),
                )
            return await self.load(intent.plugin, {}, "toggle")
        record = self.known(intent.plugin)
        active = not record.active if intent.active is None else intent.active
        if active == record.active:
            word = "on" if active else "off"
            return Plan(verb="toggle", target=record.name, warnings=(f"it is {word} already",))
        if active:
            self._kernel.require(record, self._kernel.needs(record))
            return Plan(
                verb="toggle",
                target=record.name,
                plugins=(_touched(record.name, "activate", record.version),),
                warnings=self._not_kept(record.name),
                **_lines(_NONE, lines_of([record])),
            )
        leaving = self._leaving(record, "switch off", cascade=intent.cascade)
        return Plan(
            verb="toggle",
            target=record.name,
            plugins=tuple(_touched(one.name, "deactivate", one.version) for one in leaving),
            warnings=self._warnings(leaving),
            **_lines(lines_of(leaving), _NONE),
        )

    async def reload(self, name: str) -> Plan:
        """Plan reloading a plugin."""
        record = self.known(name)
        if not record.loaded:
            raise NotFoundError(
                f"{name!r} is not loaded", plugin=name, remedy="Load it: it is read from its files."
            )
        loading = self._need("loading")
        group = self._kernel.group_of(record)
        origin = loading.origin(name)
        if origin is None:
            return Plan(
                verb="reload",
                target=name,
                plugins=tuple(_touched(one.name, "reload", one.version) for one in group),
                unknown=KINDS,
            )
        if isinstance(origin, Source) and origin.path is not None:
            origin = self._need("discovery").find(origin.path)
        async with loading.preview(origin) as made:
            manifest = made.manifest
            if manifest.name != name:
                raise StateError(
                    f"its name is {manifest.name!r} now",
                    plugin=name,
                    remedy="Unload it and load it under its new name.",
                )
            loading.check(made)
            self._check_config(manifest, given_of_record(record), exactly=True)
            declared = lines_declared(made)
        touched = [_touched(one.name, "reload", one.version) for one in group]
        touched[0] = _touched(name, "reload", manifest.version)
        known = declared if record.active and len(group) == 1 else None
        undo = loading.snapshot(name)
        return Plan(
            verb="reload",
            target=name,
            plugins=tuple(touched),
            permissions=_growth(name, manifest.permissions, record.manifest.permissions),
            undoable=undo is not None,
            why_not=None if undo is not None else "it came from no file that could be kept",
            **_lines(lines_of([record]), known),
        )

    async def configure(self, intent: Configure) -> Plan:
        """Plan a change of a configuration."""
        record = self.known(intent.plugin, core=True)
        if record.current is None:
            raise StateError(
                "it is not loaded, so it has no configuration",
                plugin=intent.plugin,
                remedy="Load it first.",
            )
        etag = etag_of(record, self._key)
        self.check_etag(intent, etag)
        given = edited(record, intent.path, intent.how, intent.value)
        await self._validate(record, given)
        paths = changed_paths(given_of_record(record), given)
        touched = [_touched(record.name, "configure", record.version)] if paths else []
        unknown: tuple[str, ...] = ()
        if intent.reload:
            group = self._kernel.group_of(record)
            touched += [_touched(one.name, "reload", one.version) for one in group]
            unknown = KINDS
        return Plan(
            verb="configure",
            target=record.name,
            plugins=tuple(touched),
            changes=tuple(paths),
            unknown=unknown,
            etag=etag,
            warnings=("it holds until the next start: this is a part of Veko",)
            if record.core
            else (),
        )

    # -- parts of the above

    async def origin(self, plugin: str) -> Form | Source:
        """Return what a plugin is loaded from.

        Raises:
            NotFoundError: There is none.
            AdminError: It is a path outside the folders of plugins (403).
        """
        if not plugin or "\0" in plugin:
            raise NotFoundError("a plugin has a name", remedy="Give its name.")
        found: Form | Source = await self._need("loading").find(plugin)
        if "/" in plugin or "\\" in plugin:
            path = found.path if isinstance(found, Source) else None
            if path is None or not _lies_in(path, self._need("discovery").folders):
                raise AdminError(
                    403,
                    "only plugins in the folders of plugins are loaded",
                    remedy="Move it there, or name the folder in the option `plugins_dir`.",
                )
        return found

    def known(self, name: str, *, core: bool = False) -> PluginRecord:
        """Return a plugin that is known.

        Raises:
            NotFoundError: There is none of that name.
            StateError: It is a part of Veko.
        """
        record = self._kernel.get(name)
        if record is None:
            known = ", ".join(sorted(r.name for r in self._kernel.records() if not r.core))
            raise NotFoundError(
                f"no plugin named {name!r} is loaded",
                plugin=name,
                remedy=f"There are: {known or 'none'}.",
            )
        if record.core and not core:
            raise StateError(
                f"{name} is a part of Veko",
                plugin=name,
                remedy="The options of the application say which parts it has.",
            )
        return record

    def check_etag(self, intent: Configure, etag: str) -> None:
        """Refuse a change that is based on another version.

        Raises:
            AdminError: It is (412).
        """
        wanted = intent.etag
        if wanted is None or wanted.strip() == "*":
            return
        if etag not in (one.strip().removeprefix("W/") for one in wanted.split(",")):
            raise AdminError(
                412,
                "the configuration has changed meanwhile",
                plugin=intent.plugin,
                remedy="Read it again, and make the change on what it is now.",
                headers={"etag": etag},
            )

    def _leaving(self, record: PluginRecord, verb: str, *, cascade: bool) -> list[PluginRecord]:
        if not cascade:
            self._kernel.refuse_if_needed(record, verb, [record])
        return [*self._kernel.from_the_top(record, [record]), record]

    def _warnings(self, leaving: Iterable[PluginRecord]) -> tuple[str, ...]:
        found = []
        for one in leaving:
            if one.manifest.required:
                found.append(f"{one.name} is required: every request is refused without it")
            elif guards(self._kernel, one):
                found.append(f"{one.name} is a guard: without it, requests pass unchecked")
        return tuple(found)

    def _not_kept(self, name: str) -> tuple[str, ...]:
        config = plugin_service(self._kernel, "config")
        overrides = getattr(config, "overrides", None)
        if config is None or overrides is None or overrides.of(name).off is not None:
            return ()
        why = config.why_off(name)
        return () if why is None else (f"{why}: it is off again after the next start",)

    def _named(self, name: str) -> str:
        """Return the name of a plugin that is not loaded.

        Raises:
            NotFoundError: There is none of that name.
        """
        return str(getattr(self._need("discovery").find(name), "name", name))

    def _check_dependencies(self, manifest: Manifest) -> None:
        dependencies = plugin_service(self._kernel, "dependencies")
        if dependencies is None:
            return
        active = {r.name: r.version for r in self._kernel.records() if r.active}
        fault = dependencies.plan([manifest], active).faults.get(manifest.name)
        if fault is not None:
            raise fault

    def _check_config(
        self, manifest: Manifest, given: Mapping[str, Any], *, exactly: bool = False
    ) -> None:
        config = self._need("config")
        section = given if exactly else config.section(manifest.name, given, manifest=manifest)
        merged = merge_config(manifest.default_config, section)
        config.check(merged, manifest.config_schema, plugin=manifest.name)

    async def _validate(self, record: PluginRecord, given: Mapping[str, Any]) -> None:
        """Ask all that checks configurations, as the change itself will.

        Raises:
            ConfigError: It is refused; all faults are listed.
        """
        merged = merge_config(record.manifest.default_config, given)
        await self._kernel.bus.emit("config:validate", merged, record, strict=True)

    def _need(self, name: str) -> Any:
        found = plugin_service(self._kernel, name)
        if found is None:
            raise StateError(
                f"the core plugin {name!r} is left out or switched off",
                remedy=f"Take {name} out of the option `core`.",
            )
        return found


def _lies_in(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.resolve().is_relative_to(one.resolve()) for one in folders)


def _touched(name: str, step: Step, version: str) -> Touched:
    return Touched(name=name, step=step, version=version)


def _growth(name: str, now: Sequence[str], before: Sequence[str]) -> dict[str, tuple[str, ...]]:
    new = tuple(one for one in now if one not in before)
    return {name: new} if new else {}


def _lines(before: Lines, after: Lines | None) -> dict[str, Any]:
    """Return the fields of a plan that say what comes and goes."""
    if after is None:
        return {"unknown": KINDS}
    return dict(difference_of(before, after))

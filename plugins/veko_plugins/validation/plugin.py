"""Checks a plugin before its code runs: manifest, engines, requirements and peers.

The loading pipeline asks the service `validation` about each plugin; `validate` makes a report
without loading. What is odd but harmless is logged as a warning, once.

Cost: some ten microseconds for a plugin that declares little; each peer costs a look into the
metadata of its distribution.
Promise: all faults together, each with its path, value and what was expected. A report runs no
code of the plugin if its source says enough; otherwise the module is imported and disposed of, and
its `load` never runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from veko import (
    ConfigError,
    Context,
    DependencyError,
    LoadError,
    Manifest,
    ManifestError,
    Plugin,
    PluginRecord,
    VekoError,
)
from veko.errors import Fault
from veko.extend import merge_config

from .._lib.guards import GUARDED, unrequired
from .._lib.manifests import (
    Findings,
    findings,
    is_event,
    manifest_error,
    peer_faults,
    requirement_fault,
)
from .._lib.secret_fields import masked
from .._lib.versions import did_you_mean, valid_range
from .._source.bytecode import MAX_SOURCE, read_source
from .._source.import_errors import explain
from .._source.source import Source
from .guarding import hooked_in
from .static import static_plugin
from .typos import event_typos, hooked_events, key_typos

__all__ = ["Validation", "ValidationReport"]

_REMEDY: Final = "Install what it requires, or fix what it declares."


class ValidationReport(msgspec.Struct, frozen=True):
    """What `validate_plugin()` found.

    Attributes:
        path: The plugin's file or folder, or the name that was asked for.
        name: The plugin's name, if it is known.
        ok: Whether there are no errors.
        errors: The faults that keep the plugin from loading here.
        warnings: Faults that do not, or that depend on the application.
    """

    path: str
    name: str | None
    ok: bool
    errors: list[str]
    warnings: list[str]


class Validation(Plugin):
    """The service `validation`.

    Args:
        strict_peers: Whether a missing or wrong peer is an error instead of a warning.
        max_source: The largest source that is read for a report, in bytes.
    """

    name = "validation"
    version = "2.0.0"
    description = "Checks manifests, engines, requirements and peers."
    core = True

    def __init__(self, *, strict_peers: bool = False, max_source: int = MAX_SOURCE) -> None:
        self._strict_peers = strict_peers
        self._max_source = max_source
        self._context: Context
        self._started = False
        self._warned: dict[str, set[str]] = {}

    def load(self, context: Context) -> None:
        """Provide the service, and check declared hooks once all events are known."""
        self._context = context
        context.provide("validation", self)
        context.hook("app:init", self._on_init)
        context.hook("plugin:loaded", self._on_loaded)
        context.hook("plugin:unloaded", self._on_unloaded)

    def check(self, plugin: Plugin, versions: Mapping[str, str] | None = None) -> None:
        """Check a plugin that is about to be loaded; log what is odd but harmless.

        Args:
            plugin: The plugin.
            versions: Versions of the plugins that are loaded in the same step, by name.

        Raises:
            ManifestError: Values in its manifest are wrong; unmet requirements are listed too.
            ConfigError: Its `config_schema` is the only thing that is wrong.
            DependencyError: A plugin, engine or peer that it requires is missing or of a wrong
                version.
        """
        manifest, path = plugin.manifest, plugin.source
        found = findings(manifest, plugin=manifest.name)
        unmet = self._unmet(manifest, versions, soon=True)
        needs = [] if unmet is None else [Fault("", unmet.message)]
        needs += self._engine_faults(plugin, found.warnings)
        peers = _peer_faults(plugin)
        if self._strict_peers:
            needs += peers
        else:
            found.warnings += peers
        for fault in found.warnings:
            self._warn(manifest.name, str(fault))
        if found.schema is not None and len(found.errors) == 1 and not needs:
            found.schema.path = path
            raise found.schema
        if found.errors:
            raise manifest_error([*found.errors, *needs], plugin=manifest.name, path=path)
        if unmet is not None and len(needs) == 1:
            unmet.path = path
            raise unmet
        if needs:
            text = "; ".join(map(str, needs))
            raise DependencyError(text, plugin=manifest.name, path=path, remedy=_REMEDY)

    @staticmethod
    def complete(fault: DependencyError, fields: Mapping[str, object]) -> VekoError:
        """Return an error with all faults of a plugin whose requirements cannot be met.

        Args:
            fault: The error of the load plan.
            fields: The manifest fields that the source spells out.
        """
        others = findings(fields).errors
        if not others:
            return fault
        faults = [*others, Fault("", fault.message)]
        return manifest_error(faults, plugin=fault.plugin, path=fault.path)

    def masked(self, config: object, schema: object) -> Any:
        """Return a configuration as plain data without its secrets; see `secret_fields.masked`."""
        return masked(config, schema)

    def _unmet(
        self, manifest: Manifest, more: Mapping[str, str] | None = None, *, soon: bool = False
    ) -> DependencyError | None:
        valid = tuple(one for one in manifest.dependencies if not requirement_fault(one))
        if not valid:
            return None
        manifest = msgspec.structs.replace(manifest, dependencies=valid)
        kernel = self._context.kernel
        now = {record.name: record.version for record in kernel.records() if record.active}
        active = now | dict(more or {}) if soon else dict(more or {}) | now
        active.pop(manifest.name, None)
        fault: DependencyError | None = (
            kernel.use("dependencies").plan([manifest], active).faults.get(manifest.name)
        )
        return fault

    def _engine_faults(self, plugin: Plugin, warnings: list[Fault]) -> list[Fault]:
        engines = plugin.manifest.engines
        if not engines:
            return []
        service = self._context.kernel.use("dependencies")
        own: dict[str, str] = getattr(plugin, "engine_versions", {})  # of a runtime of its own
        faults: list[Fault] = service.engine_faults(engines, own)
        if "node" not in {**service.engine_versions, **own} and valid_range(
            engines.get("node", "")
        ):
            # A plugin in Python runs without a JavaScript runtime, though its manifest names one.
            warnings += [fault for fault in faults if fault.path == "engines.node"]
            faults = [fault for fault in faults if fault.path != "engines.node"]
        return faults

    def _on_init(self) -> None:
        self._started = True
        for record in self._context.kernel.records():
            if record.loaded:
                self._check_hooks(record)

    def _on_loaded(self, name: str, record: PluginRecord) -> None:
        if self._started:  # before the start, a plugin that loads later may declare the event
            self._check_hooks(record)

    def _on_unloaded(self, name: str) -> None:
        self._warned.pop(name, None)

    def _check_typos(self, record: PluginRecord) -> None:
        if record.core or record.current is None:
            return
        known = set(map(str, self._context.kernel.bus.registry.keys("event")))
        hooked = [str(entry.key) for entry in record.current.entries if entry.kind == "hook"]
        faults = list(event_typos(hooked, known))
        if record.manifest.config_schema is None:
            faults += key_typos(record.current.given, record.manifest.default_config, "config.")
        for fault in faults:
            self._warn(record.name, str(fault))

    def _check_hooks(self, record: PluginRecord) -> None:
        self._check_typos(record)
        declared = record.manifest.hooks
        if declared is None:
            return
        for fault in self._unknown_hooks(declared):
            self._warn(record.name, str(fault))
        entries = record.current.entries if record.current is not None else ()
        used = {str(entry.key) for entry in entries if entry.kind in ("hook", "pattern")}
        for event in sorted(used - set(declared)):
            if record.manifest.declares(event):
                continue
            near = did_you_mean(event, declared, count=1)
            self._warn(
                record.name, f"it hooks {event!r}, which is not in its `hooks`. {near}".rstrip()
            )

    def _unknown_hooks(self, declared: Iterable[str]) -> Iterator[Fault]:
        known = {event.name for event in self._context.kernel.bus.events}
        for number, event in enumerate(declared):
            # A pattern may match later events; `plugin:<name>:<event>` needs no declaration.
            of_plugin = event.startswith("plugin:") and event.count(":") > 1
            if event not in known and "*" not in event and is_event(event) and not of_plugin:
                near = did_you_mean(event, known, count=1)
                message = f"no event {event!r} is declared. {near}".rstrip()
                yield Fault(f"hooks[{number}]", message)

    def _warn(self, name: str, text: str) -> None:
        before = self._warned.setdefault(name, set())
        if text not in before:
            before.add(text)
            self._context.log("warning", f"{name}: {text}", about=name)

    async def validate(self, wanted: str | Path) -> ValidationReport:
        """Check a plugin without loading it; see `PluginManager.validate_plugin`."""
        kernel = self._context.kernel
        try:
            source = await kernel.use("discovery").resolve(wanted)
        except VekoError as error:
            return _report(Path(wanted), error.plugin, _faults_of(error))
        path = Path(getattr(source, "path", None) or getattr(source, "source", None) or wanted)
        if isinstance(source, Plugin):
            return self._report(path, source)
        try:
            plugin = self._static(source)
            if plugin is not None:
                return self._report(path, plugin)
            loaded = await kernel.use("loader").import_source(source)
        except VekoError as error:
            return _report(path, error.plugin or _name(source), _faults_of(error))
        try:
            return self._report(path, loaded.plugin)
        finally:
            kernel.use("loader").dispose(loaded)

    def _static(self, source: Source) -> Plugin | None:
        file = source.file
        if file is None or file.suffix != ".py" or source.path is None:
            return None
        try:
            text, _ = read_source(str(file), self._max_source)
            return static_plugin(text, file, source.fields)
        except (LoadError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise explain(error, source.name, source.path, source.name) from error

    def _report(self, path: Path, plugin: Plugin) -> ValidationReport:
        kernel, manifest = self._context.kernel, plugin.manifest
        found: Findings = findings(manifest, plugin=manifest.name)
        found.errors += self._engine_faults(plugin, found.warnings)
        peers = _peer_faults(plugin)
        (found.errors if self._strict_peers else found.warnings).extend(peers)
        here = kernel.use("discovery").scan().sources
        versions = {one.name: one.outline.version for one in here if one.outline is not None}
        unmet = self._unmet(manifest, versions)
        if unmet is not None:
            # One that has to be imported first may have the name, or the version.
            unsure = any(one.outline is None and one.name in unmet.message for one in here)
            (found.warnings if unsure else found.errors).append(Fault("", unmet.message))
        found.warnings += self._unknown_hooks(manifest.hooks or ())
        found.warnings += self._guard_faults(path, manifest)
        found.warnings += self._typos(path, manifest)
        record = kernel.get(manifest.name)
        if record is not None and record.core:
            found.errors.append(Fault("name", f"{manifest.name!r} is the name of a core plugin"))
        elif record is not None and record.source is not None and record.source != path:
            message = f"{manifest.name!r} is already loaded, from {record.source}"
            found.warnings.append(Fault("name", message))
        found.errors += self._section_faults(manifest, found)
        return _report(path, manifest.name, found.errors, found.warnings)

    def _typos(self, path: Path, manifest: Manifest) -> list[Fault]:
        """Return the typing errors in the source, and in the application's section."""
        file = path / "__init__.py" if path.is_dir() else path
        faults: list[Fault] = []
        if file.is_file():
            known = {event.name for event in self._context.kernel.bus.events}
            faults += event_typos(hooked_events(read_source(str(file), self._max_source)[0]), known)
        if manifest.config_schema is None:
            section = self._context.kernel.use("config").section(manifest.name, manifest=manifest)
            faults += key_typos(section, manifest.default_config, "config.")
        return faults

    def _guard_faults(self, path: Path, manifest: Manifest) -> list[Fault]:
        """Return the warning about a plugin that guards and is not required."""
        if manifest.required:
            return []
        closed = [event.name for event in self._context.kernel.bus.events if event.fails_closed]
        guarded = tuple(dict.fromkeys((*GUARDED, *closed)))
        events = hooked_in(path, guarded, _covers, self._max_source)
        return [Fault("", unrequired(manifest.name, events))] if events else []

    def _section_faults(self, manifest: Manifest, found: Findings) -> list[Fault]:
        """Return the faults of the application's configuration for the plugin."""
        config = self._context.kernel.use("config")
        section = config.section(manifest.name, manifest=manifest)
        if found.schema is not None:
            return []
        try:
            given = merge_config(manifest.default_config, section)
            config.check(given, manifest.config_schema, plugin=manifest.name)
        except ConfigError as error:
            return [Fault("", error.message)]
        return []


def _peer_faults(plugin: Plugin) -> list[Fault]:
    """Return which peers are missing: distributions, or the npm packages of a script."""
    own: list[Fault] | None = getattr(plugin, "peer_faults", None)
    if own is not None:
        return own
    peers = plugin.manifest.peer_dependencies
    return peer_faults(peers) if peers else []


def _name(source: Source) -> str | None:
    return source.outline.name if source.outline is not None else None


def _faults_of(error: VekoError) -> list[Fault]:
    if isinstance(error, ManifestError) and error.faults:
        return list(error.faults)
    return [Fault("", str(error))]


def _covers(pattern: str, event: str) -> bool:
    """Return whether a pattern matches an event: `*` one segment, `**` any number of them."""
    regex = re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^:]+")
    return re.fullmatch(regex, event) is not None


def _report(
    path: Path, name: str | None, errors: Iterable[Fault], warnings: Iterable[Fault] = ()
) -> ValidationReport:
    texts, odd = list(dict.fromkeys(map(str, errors))), list(dict.fromkeys(map(str, warnings)))
    return ValidationReport(str(path), name, not texts, texts, odd)

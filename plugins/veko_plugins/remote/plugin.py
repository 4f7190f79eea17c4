"""The core plugin `remote`: plugins whose code runs in processes of their own.

It answers `source:import`: for scripts (JavaScript, TypeScript) always, for Python plugins with
`isolation = "process"` in their manifest, for those that need other distributions than the host
has, and for all plugins with the option `enable_sandbox`. A generation has a process of its own, so
a reload starts the new one while the old one serves.

Cost: nothing is imported and no process is started until there is such a plugin.
Promise: a process that ends costs its own plugin only, which is restarted; see `crashes`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from veko import Context, Plugin, PluginRecord
from veko.errors import LoadError, StateError, VekoError

from .._source.loading import Loading
from .._source.source import Source, SourceImport
from .crashes import Crashes

if TYPE_CHECKING:
    from .environments import Environments
    from .imports import Imports
    from .life import Life
    from .proxy import RemotePlugin

__all__ = ["Remote"]

_LOGGING: Final = "logging"
_PLUGIN_EVENTS: Final = (
    "plugin:loaded", "plugin:unloaded", "plugin:activated", "plugin:deactivated",
)  # fmt: skip


class Remote(Plugin):
    """Runs plugins in workers.

    Args:
        directory: The application's directory.
        sandbox: Whether all plugins of the application run in workers.
        dev_mode: Whether the application is being developed.
    """

    name = "remote"
    version = "2.0.0"
    description = "Plugins in processes of their own: JavaScript, TypeScript, isolated Python."
    core = True

    _context: Context
    _restarts: Crashes

    def __init__(
        self, directory: Path = Path(), *, sandbox: bool = False, dev_mode: bool = False
    ) -> None:
        self._directory = directory.absolute()
        self._sandbox = sandbox
        self._dev_mode = dev_mode
        self._imports: Imports | None = None
        self._environments: Environments | None = None
        self._lives: dict[str, list[Life]] = {}
        self._services: dict[str, Any] = {}
        self._ending = False

    def load(self, context: Context) -> None:
        """Answer `source:import`, and follow what the workers have to know."""
        self._context = context
        self._restarts = Crashes(context, self._reload)
        context.hook("source:import", self._import, timeout=None)
        context.hook("source:imported", self._imported)
        context.hook("plugin:load", self._refuse)

    async def unload(self) -> None:
        """End the launcher, and with it all workers."""
        self._ending = True
        if self._imports is not None:
            await self._imports.close()
        if self._environments is not None:
            self._environments.close()

    @staticmethod
    def _imported(plugin: Any) -> None:
        """Refuse a plugin that was imported here though it is to be isolated.

        Its manifest did not say so where it could be read: the value is computed.
        """
        if isinstance(plugin, Plugin) and _is_here(plugin):
            raise LoadError(
                "its `isolation` cannot be read without running it, and it has run here",
                step="import",
                plugin=plugin.manifest.name,
                path=plugin.source,
                remedy='Write isolation = "process" at the top of its module, as it stands.',
            )

    @staticmethod
    def _refuse(name: str, record: PluginRecord) -> None:
        """Refuse a plugin that is to be isolated and was given as an object."""
        if _is_here(record.plugin):
            raise StateError(
                'its isolation is "process", and it was given as an object of this one',
                plugin=name,
                remedy="Load it from its file.",
            )

    async def _reload(self, name: str) -> None:
        loading: Loading = self._context.use("loading")
        await loading.reload_plugin(name, drained=False)

    # -- making plugins

    async def _import(self, source: Any, asked: SourceImport) -> Plugin | None:
        if not isinstance(source, Source):
            return None
        program = await self._program(source, asked) if source.requires else None
        if program is None and not self._wants(source):
            return None
        if source.kind == "file" and source.path is not None and source.path.suffix != ".py":
            raise LoadError(
                f"a plugin in {source.path.suffix[1:]} cannot run in a process of its own",
                step="import",
                plugin=source.name,
                path=source.path,
                remedy="Write it in Python, or run it in the application's process.",
            )
        return await self._started().make(source, asked, program)

    async def _program(self, source: Source, asked: SourceImport) -> Path | None:
        """Return the interpreter of a plugin's own environment; `None` if the host's will do."""
        from .environments import Environments, requirements_of

        wanted = requirements_of(source, asked.wanted)
        missing = wanted.unmet()
        if not missing:
            return None
        if self._environments is None:
            stored = self._directory / ".veko"
            log = functools.partial(self._context.log, "info")
            self._environments = Environments(stored / "environments", stored / "cache", log)
        self._context.log(
            "info", f"{source.name} gets a process and an environment of its own: {missing[0]}"
        )
        trusted = not self._wants(source)
        return await self._environments.get(source.name, wanted, trusted=trusted)

    def _wants(self, source: Source) -> bool:
        if source.kind == "script" or self._sandbox:
            return True
        fields = source.outline.fields if source.outline is not None else source.fields
        if source.outline is not None or source.path is None:
            return fields.get("isolation") == "process"
        from .static import says_isolated

        return fields.get("isolation") == "process" or says_isolated(source)

    def _started(self) -> Imports:
        if self._imports is None:
            self._follow()
            from .imports import Imports
            from .launcher import Launcher
            from .python.runtime import MODULES

            self._imports = Imports(
                self._context,
                Launcher(preload=MODULES),
                directory=self._directory,
                dev_mode=self._dev_mode,
                setup=self._setup,
                crashed=self._crashed,
                written=self._written,
                ended=self._ended,
            )
        return self._imports

    def _follow(self) -> None:
        """Follow what workers have to know; plugins of applications without any do not pay."""
        context = self._context
        context.hook("config:change", self._config_changed)
        context.hook("config:validate", self._check_config, priority=1, timeout=None)
        for event in _PLUGIN_EVENTS:
            context.hook(event, self._plugins_changed, priority=-1)
        context.hook("plugin:loaded", self._loaded, priority=100)

    def _setup(self, life: Life, context: Context, config: Any) -> dict[str, Any]:
        """Return what a worker gets when its plugin loads."""
        import msgspec

        from .arguments import info_of, plain
        from .services import describe, exports_of
        from .stored import entries_of

        self._lives.setdefault(life.name, []).append(life)
        exports = {}
        for record in context.list_plugins():
            if record.name in {one.split("@")[0] for one in _needed(context)}:
                exports[record.name] = describe(record, exports_of(record))
        manifest = msgspec.structs.asdict(context.manifest)
        setup = {
            "config": plain(config),
            "storage": entries_of(context, python=life.is_python),
            "plugins": [info_of(one) for one in context.list_plugins()],
            "exports": exports,
            "services": self._offered() if life.is_python else list(self._offered()),
            "app": {
                "name": str(getattr(context.app, "name", None) or self._directory.name),
                "dev_mode": self._dev_mode,
                "directory": str(self._directory),
            },
        }
        return setup | {"manifest": plain(manifest)} if not life.is_python else setup

    def _offered(self) -> dict[str, Any]:
        """Return the services of the application's plugins, as they are described to workers."""
        from .services import describe

        found: dict[str, Any] = {}
        for entry in self._context.kernel.registry.entries("service"):
            if not getattr(getattr(entry.owner, "plugin", None), "core", True):
                try:
                    found[str(entry.key)] = describe(entry.value)
                except Exception as error:  # a property of it may raise anything
                    found[str(entry.key)] = {"reason": f"{type(error).__name__}: {error}"}
        return found

    # -- what workers have to know

    def _all(self) -> list[Life]:
        return [life for lives in self._lives.values() for life in lives if not life.down]

    def _plugins_changed(self, name: str) -> None:
        lives = self._all()
        if not lives:
            return
        from .arguments import info_of

        kernel = self._context.kernel
        infos = [info_of(one) for one in kernel.records() if one.loaded and not one.core]
        services = self._offered()
        before, self._services = self._services, services
        changed = {key: one for key, one in services.items() if before.get(key) != one}
        changed |= dict.fromkeys(before.keys() - services.keys())
        for life in lives:
            life.note("plugins", infos)
            if life.is_python and changed:
                life.note("services", changed)

    def _config_changed(self, config: Any, record: PluginRecord) -> None:
        if record.name == _LOGGING and record.core:
            from .records import levels_of

            for life in self._all():
                if life.is_python:
                    life.note("levels", levels_of(self._context, life.name))
        for life in self._lives.get(record.name, ()):
            if life.context is not None and life.context.config is config:
                from .arguments import plain

                life.note("config", plain(config))

    async def _check_config(self, config: Any, generation: Any) -> Any:
        """Let the worker check what only its own types can."""
        plugin: Any = getattr(generation, "plugin", None)
        if not getattr(plugin, "checks_config", False):
            return None
        from .arguments import plain

        found = await plugin.lives[-1].call("check_config", plain(config))
        return found if isinstance(found, dict) else None

    def _written(self, life: Life, entries: dict[str, Any], gone: list[str]) -> None:
        """Let the other generations of a plugin see what one has written."""
        from .stored import as_crossing

        for other in self._lives.get(life.name, ()):
            if other is not life and not other.down:
                other.note("storage_changed", as_crossing(entries, python=other.is_python), gone)

    # -- crashes

    def _loaded(self, name: str, record: PluginRecord) -> None:
        for life in getattr(record.plugin, "lives", ()):
            if life.context is not None:
                life.live = True
                if life.down:  # it has ended while it went live
                    plugin: Any = record.plugin
                    self._crashed(plugin, life, life.worker.why)

    def _ended(self, life: Life) -> None:
        lives = self._lives.get(life.name, [])
        if life in lives:
            lives.remove(life)
        if not lives:
            self._lives.pop(life.name, None)

    def _crashed(self, plugin: RemotePlugin, life: Life, why: VekoError | None) -> None:
        """Restart a plugin whose process has ended, unless it does so again and again."""
        record = self._context.kernel.get(life.name)
        current: object = None if record is None else record.plugin
        if self._ending or not life.live or current is not plugin:
            return  # it was replaced, or never went live: then its load fails
        life.live = False
        error = why or StateError("its process has ended", plugin=life.name)
        self._restarts.crashed(life.name, error)


def _is_here(plugin: Plugin) -> bool:
    """Return whether a plugin that is to be isolated is no proxy of a worker."""
    return plugin.manifest.isolation == "process" and not hasattr(plugin, "lives")


def _needed(context: Context) -> tuple[str, ...]:
    from .._lib.versions import Requirement

    found: list[str] = []
    for text in context.manifest.dependencies:
        try:
            found.append(Requirement.parse(text).name)
        except ValueError:  # loading it reports what is wrong
            continue
    return tuple(found)

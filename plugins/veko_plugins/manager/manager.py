"""The plugin manager: the kernel with the core plugins on it.

It composes. The work is done by the core plugins, each of which can be replaced or left out by
name (`core`). The manager runs on asyncio and uvloop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Unpack, overload

from veko import Bus, Event, PluginRecord, Subscription
from veko.errors import ServiceError, StateError
from veko.extend import check_text

from .._source.source import Form
from ..backup import RestoreReport
from ..devtools import create_dev_plugin, create_plugin_builder, create_simple_plugin
from ..health import PluginHealth
from ..metrics import Metrics
from ..options import Options
from ..profiling import PluginProfile
from ..reports import LoadReport, PluginInfo, Stats, info_of, stats_of
from ..signals import Observer, Signals
from ..state import StateReport
from ..validation import ValidationReport
from .administration import Administration
from .arguments import ManagerOptions, check_path, root_of
from .asgi import ManagerASGI
from .records import find_known, get_loaded, is_known

__all__ = ["PluginManager"]

_Service = TypeVar("_Service")


class PluginManager(Administration):
    """Finds, loads and runs plugins: `async with PluginManager(app) as manager`.

    Args:
        app: Whatever the plugins extend; they get it as `app`.
        root: The application's directory, with `veko.toml`, `plugins/` and `.veko/`. If left out:
            the folder that holds `plugins_dir` if that is an absolute path to a `plugins/`, that
            path itself if it has another name, else the working directory.
        options: See `Options`. Arguments override the environment, which overrides `veko.toml`.

    Attributes:
        options: All options, with what the environment and files say.
        kernel: The kernel; what is subscribed on its bus stays over a restart.
        report: What `start()` loaded, or the last `load_all_plugins()`.
        asgi: The manager as an ASGI application.

    Raises:
        OptionError: An option is unknown or has the wrong type.
    """

    def __init__(
        self,
        app: Any = None,
        *,
        root: str | Path | None = None,
        **options: Unpack[ManagerOptions],
    ) -> None:
        super().__init__(app, Options.read(root or root_of(options.get("plugins_dir")), options))
        self.asgi = ManagerASGI(self)

    # -- plugins

    async def load_plugin(
        self, plugin: Form, config: Mapping[str, Any] | None = None
    ) -> PluginRecord:
        """Load a plugin.

        Args:
            plugin: Its name, its path, or the plugin in any form.
            config: Its configuration, merged over its section in the settings.

        Returns:
            The plugin: `.name`, `.version`, `.module`, `.exports`, `.config`, `.state`, `.active`.

        Raises:
            NotFoundError: There is no such plugin.
            VekoError: It cannot be loaded; see `Kernel.load`. A `load()` that raised or hung was
                retried `max_retries` times, each time with a fresh generation.
            ServiceError: The manager is not running.
        """
        self._check_running("it loads no plugins")
        return await self._get_loading().load_plugin(plugin, config)

    async def load_all_plugins(self) -> LoadReport:
        """Load all plugins that are found, each as soon as what it needs is loaded.

        Returns:
            Which plugins were loaded, which failed and why, which were skipped because of that.

        Raises:
            ServiceError: The manager is not running.
        """
        self._check_running("it loads no plugins")
        self.report = await self._get_loading().load_all()
        return self.report

    async def unload_plugin(self, name: str, *, cascade: bool = False) -> None:
        """Unload a plugin and remove all that it registered.

        Args:
            name: The plugin's name.
            cascade: Unload the plugins that need it first, instead of refusing.

        Raises:
            NotFoundError: It is not loaded.
            DependencyError: Active plugins need it.
        """
        self._check_started(name)
        record = find_known(self.kernel, name)
        if record is not None and not record.loaded:  # it has failed: nothing of it runs
            self.kernel.forget(record)
            return
        if record is None:
            get_loaded(self.kernel, name)  # raises: it lists what is loaded
        await self.kernel.unload(name, cascade=cascade)

    async def reload_plugin(
        self, name: str, config: Mapping[str, Any] | None = None
    ) -> PluginRecord:
        """Load a plugin's source again; if that fails, the old version keeps running.

        Args:
            name: The plugin's name.
            config: Merged over its present configuration.

        Raises:
            NotFoundError: It is not loaded.
            VekoError: The new version cannot be loaded; the old one never stopped.
        """
        self._check_started(name)
        return await self._get_loading().reload_plugin(name, config)

    async def toggle_plugin(
        self, name: str, active: bool | None = None, *, cascade: bool = False
    ) -> bool:
        """Switch a plugin on or off.

        Args:
            name: The plugin's name.
            active: On or off; the opposite of what it is if left out.
            cascade: Switch the plugins that need it off first, instead of refusing.

        Returns:
            Whether it is on now.

        Raises:
            NotFoundError: It is not loaded.
            DependencyError: Active plugins need it, or what it needs is off.
        """
        check_text("the name of a plugin", name)
        record = self.kernel.get(name)
        was_on = record is not None and record.active
        is_on = await self.kernel.toggle(name, active, cascade=cascade)
        health = self.kernel.registry.get("service", "health")
        if health is not None and (was_on or not is_on):
            # Its breaker may have had it off already, or have some of its routes off.
            health.value.release(name)
        return is_on

    async def validate_plugin(self, path: str | Path) -> ValidationReport:
        """Report what would keep a plugin from being loaded here, and what is unusual about it.

        None of its code runs if its source tells enough: a manifest of literals, and functions.
        Otherwise its module is imported and disposed of. `load` never runs.

        Args:
            path: Its file or folder, or its name.
        """
        check_path(path)
        report: ValidationReport = await self.use("validation").validate(path)
        return report

    def get_plugin(self, name: str) -> PluginRecord | None:
        """Return a plugin of the application that is loaded, or failed since; or `None`."""
        check_text("the name of a plugin", name)
        return find_known(self.kernel, name)

    def list_plugins(self, core: bool = False) -> list[PluginInfo]:
        """Return information on the plugins that are loaded, in order of arrival.

        One that has failed since it was loaded is listed until it is unloaded or loaded again.

        Args:
            core: List the core plugins instead.
        """
        records = self.kernel.records()
        return [
            info_of(self.kernel, r)
            for r in records
            if (r.core and r.loaded if core else is_known(r))
        ]

    def get_stats(self) -> Stats:
        """Return counts of the application's plugins and of what they registered."""
        uptime = time.monotonic() - self._started_at if self._state == "running" else 0.0
        return stats_of(self.kernel, uptime)

    def check_plugin_health(self, name: str) -> PluginHealth:
        """Return the health of a plugin, with the reasons.

        Raises:
            NotFoundError: There is no plugin of that name.
            ServiceError: The core plugin `health` is left out or switched off.
        """
        check_text("the name of a plugin", name)
        health: PluginHealth = self.use("health").check(name)
        return health

    @property
    def metrics(self) -> Metrics:
        """Calls and latency by plugin: `manager.metrics.get(name)`.

        Raises:
            ServiceError: Nothing is measured: `enable_metrics` is off, or the manager is stopped.
        """
        entry = self.kernel.registry.get("service", "metrics")
        if entry is None:
            raise ServiceError(
                "nothing is measured",
                remedy="Set enable_metrics, and use it while the manager runs.",
            )
        metrics: Metrics = entry.value
        return metrics

    async def profile_plugin(
        self,
        name: str,
        duration: float = 10.0,
        *,
        path: str | Path | None = None,
        memory: bool = False,
    ) -> PluginProfile:
        """Sample what a plugin does on the event loop, and write a flame graph.

        Args:
            name: The plugin.
            duration: How long, in seconds.
            path: The file of the flame graph: a page for a browser, or a profile for speedscope if
                it ends in `.json`; `.veko/profiles/<name>-<time>.html` if left out.
            memory: Whether to trace its allocations too, which slows everything down.

        Raises:
            NotFoundError: There is no such plugin.
            OptionError: pyinstrument is not installed, or the file cannot be written.
            StateError: Another profile is being taken.
        """
        check_text("the name of a plugin", name)
        check_path(path, optional=True)
        profile: PluginProfile = await self.use("profiling").profile(
            name, duration, path=path, memory=memory
        )
        return profile

    def error_count(self, name: str) -> int:
        """Return how often a plugin's code failed since it was loaded; 0 if it is unknown."""
        check_text("the name of a plugin", name)
        record = self.kernel.get(name)
        return record.error_count if record is not None else 0

    # -- states and backups

    async def save_state(self) -> Path:
        """Save which plugins are on, with what configuration, in `.veko/state.jsonl`.

        Secrets are left out. The file is written completely or not at all, even if the process is
        killed.

        Returns:
            The file.

        Raises:
            BackupError: It cannot be written; the state that was saved before stays.
        """
        path: Path = await self.use("state").save()
        return path

    async def restore_state(self) -> StateReport:
        """Load, configure and switch the plugins as `save_state` saved them.

        Returns:
            What was done, which plugins are missing, and which could not be restored.

        Raises:
            BackupError: No state was saved, or its file is damaged; nothing has changed.
        """
        report: StateReport = await self.use("state").restore()
        return report

    async def backup_plugins(self, path: str | Path | None = None) -> Path:
        """Write plugins, states, configurations and the storage into one file.

        Args:
            path: The file, `.veko/backups/<UTC time>.jsonl` if left out. Nothing is overwritten.

        Returns:
            The file.

        Raises:
            BackupError: It cannot be written; no part of it is left.
            StorageError: The storage cannot be read.
        """
        check_path(path, optional=True)
        written: Path = await self.use("backup").save(path)
        return written

    async def restore_plugins(self, path: str | Path) -> RestoreReport:
        """Restore the configuration, the state and the storage of plugins from a backup.

        The application's plugins stop and start again. All of it is done, or nothing.

        Raises:
            BackupError: The file is no valid backup, or its plugins are not here or refuse it;
                nothing has changed, no plugin has stopped.
            VekoError: A step failed; everything is as it was before.
        """
        check_path(path)
        report: RestoreReport = await self.use("backup").restore(path)
        return report

    # -- events, services, commands

    @property
    def bus(self) -> Bus:
        """The event bus."""
        return self.kernel.bus

    def on(self, event: str, fn: Callable[..., object], *, core: bool = False) -> Observer:
        """Observe an event; observers cannot change values, and stay over a restart.

        Args:
            event: The event's name, or a pattern.
            fn: `def` or `async def`; gets as many of the event's arguments as it accepts.
            core: Whether it also hears what happens to core plugins.

        Returns:
            The observer; `cancel()` ends it, as `off` does.
        """
        return self._signals.on(event, fn, core=core)

    def off(self, event: str, fn: Callable[..., object]) -> None:
        """Stop observing; does nothing if `fn` does not observe the event."""
        self._signals.off(event, fn)

    @property
    def signals(self) -> Signals:
        """The blinker signal of each event: `manager.signals["plugin:loaded"]`."""
        return self._signals

    def unwatch(self, *patterns: str) -> None:
        """Stop firing `file:*` events for some files; kept over a restart.

        Args:
            patterns: Patterns as in `watch_ignore`: `"*.log"`, `"data/*"`; see `Watch.unwatch`.

        Raises:
            StateError: No files are watched: the manager is not running with `watch_mode`.
            OptionError: A pattern is empty, or not a string.
        """
        try:
            watch = self.use("watch")
        except ServiceError as error:
            raise StateError(
                "no files are watched", remedy="Start the manager with watch_mode=True."
            ) from error
        watch.unwatch(*patterns)
        self._unwatched.extend(patterns)

    @property
    def hooks(self) -> dict[str, tuple[Subscription, ...]]:
        """The subscriptions by event or pattern, in the order of their calls."""
        registry = self.kernel.registry
        return {
            str(key): tuple(entry.value for entry in registry.all(kind, key))
            for kind in ("hook", "pattern")
            for key in registry.keys(kind)
        }

    def events(self) -> list[Event[Any]]:
        """Return the declared events, by name."""
        return sorted(self.kernel.bus.events, key=lambda event: event.name)

    @overload
    def use(self, service: str) -> Any: ...
    @overload
    def use(self, service: type[_Service]) -> _Service: ...
    def use(self, service: str | type[Any]) -> Any:
        """Return a service.

        Args:
            service: The service's name, or the type of the only service that is an instance of it.

        Raises:
            ServiceError: It is not available, or several are of that type; the message says why.
        """
        name = service if isinstance(service, str) else getattr(service, "__name__", service)
        self._check_running(f"there is no service {name!r}")
        return self.kernel.use(service)

    def _check_running(self, consequence: str) -> None:
        if self._state in ("created", "stopped"):
            raise ServiceError(
                f"the manager is {self.state}, so {consequence}",
                remedy="Start it first: `async with manager`, or `await manager.start()`.",
            )

    async def run_command(self, name: str, *args: object, **kwargs: object) -> object:
        """Run a plugin's command and return what it returns.

        Raises:
            NotFoundError: There is no such command.
        """
        check_text("the name of a command", name)
        return await self.use("commands").run(name, *args, **kwargs)

    # -- making plugins

    create_dev_plugin = staticmethod(create_dev_plugin)
    create_plugin_builder = staticmethod(create_plugin_builder)
    create_simple_plugin = staticmethod(create_simple_plugin)

    async def generate_plugin(
        self, name: str, template: str = "basic", **answers: str | None
    ) -> Path:
        """Generate a plugin into the (first) plugin folder, with a test that passes.

        Nothing is ever overwritten: all of it is written, or nothing. The plugin is not loaded.

        Args:
            name: The plugin's name.
            template: `basic`, `api`, `middleware`, `websocket`, `database`, `auth` or `typescript`.
            answers: `description`, `author`, `version` and `license`.

        Returns:
            The plugin's folder.

        Raises:
            ScaffoldError: The name, the template or an answer is not valid, the plugin exists, or
                the folder cannot be written.
        """
        from ..scaffold import generate_plugin

        folder = self.options.plugins_dir[0]
        return await generate_plugin(name, template, folder=folder, **answers)

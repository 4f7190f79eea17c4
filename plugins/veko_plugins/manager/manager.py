"""The plugin manager: the kernel with the core plugins on it, under the names of the original.

It composes; what it does is done by the core plugins, each of which can be replaced or left out
by name. It runs on asyncio (and uvloop). The kernel lives in a task of the manager's own, so that
`start()` and `stop()` may be called from different tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from veko import Bus, Event, Origin, Plugin, PluginRecord, Subscription
from veko.errors import LoadError, NotFoundError, ServiceError, StateError

from .._source.source import Form
from ..backup import RestoreReport
from ..health import PluginHealth
from ..metrics import Metrics
from ..options import Options
from ..profiling import PluginProfile
from ..reports import LoadReport, PluginInfo, Stats, info_of, stats_of
from ..signals import Observer, Signals
from ..state import StateReport
from ..validation import ValidationReport
from .asgi import ManagerASGI
from .builder import PluginBuilder, simple_plugin
from .composition import core_plugins, kernel_of
from .loading import Loading
from .option_checks import in_vain, refuse_unsafe

__all__ = ["PluginManager"]

_log: Final = logging.getLogger("veko.manager")


class PluginManager:
    """Finds, loads and runs plugins: `async with PluginManager(app) as manager`.

    Args:
        app: Whatever the plugins extend; they get it as `app`.
        root: The application's directory: `veko.toml`, `plugins/` and `.veko/` lie there. The
            folder that holds `plugins_dir` if that is an absolute path to a `plugins/`, that
            path itself if it has another name, else the working directory, if left out.
        options: See `Options`; arguments outweigh the environment, that outweighs `veko.toml`.

    Attributes:
        options: All options, with what the environment and files say.
        kernel: The kernel; what is subscribed on its bus stays over a restart.
        report: What `start()` loaded, or the last `load_all_plugins()`.

    Raises:
        OptionError: An option is unknown or ill-typed.
    """

    def __init__(self, app: Any = None, *, root: str | Path | None = None, **options: Any) -> None:
        self.app = app
        self.options = Options.read(root or _root_of(options.get("plugins_dir")), options)
        refuse_unsafe(self.options)
        self.asgi = ManagerASGI(self)
        self.report = LoadReport()
        self._state = "created"
        self._signals: Signals = self.options.core.get("signals") or Signals()
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._began = 0.0
        self.kernel = kernel_of(app, self.options)
        self._loading = Loading(self.kernel, self.options)
        self._unwatched: list[str] = []

    # -- the manager's own life

    async def start(self) -> None:
        """Start the core plugins, load what is found (`auto_load`), fire `app:init`, `app:start`.

        Raises:
            LoadError: A plugin listed in `required` did not load; nothing is left running.
            StateError: It runs already.
        """
        if self._state not in ("created", "stopped"):
            raise StateError(f"the manager is {self._state}", remedy="Stop it first.")
        self._state = "starting"
        self._stopping = asyncio.Event()  # of this loop: it may have run in another
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(started), name="veko")
        try:
            await started
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self._task.cancel()  # or it would go on loading
            with contextlib.suppress(asyncio.CancelledError):
                await self.stop()
            raise
        self._state = "running"

    async def _run(self, started: asyncio.Future[None]) -> None:
        """Hold the kernel from start to stop, in one task."""
        self._began = time.monotonic()
        self._loading = Loading(self.kernel, self.options)
        try:
            async with self.kernel:
                try:
                    await self._boot()
                except BaseException as error:
                    self._state = "stopping"
                    if started.done():
                        raise
                    stopped = isinstance(error, asyncio.CancelledError)
                    started.set_exception(
                        StateError("it was stopped while it started") if stopped else error
                    )
                else:
                    started.set_result(None)
                    await self._stopping.wait()
                    await self.kernel.bus.emit("app:stop", self.app)
        finally:
            self._loading.dispose_all()
            self._state = "stopped"
            if not started.done():
                started.cancel()

    async def _boot(self) -> None:
        for plugin in core_plugins(self.options, self._signals, self._loading, self._unwatched):
            await self.kernel.load(plugin, self.options.plugins.get(plugin.manifest.name))
        self._loading.ready()
        if self.options.auto_load:
            await self.load_all_plugins()
            for line in in_vain(self.options, self._names()):
                _log.warning("%s", line)
        missing = [name for name in self.options.required if self.get_plugin(name) is None]
        if missing:
            why = "; ".join(f"{name}: {self.report.why(name)}" for name in missing)
            error = LoadError(
                f"required plugins did not load: {why}",
                step="start",
                remedy="Mend them, or take them out of `required`.",
            )
            await self.kernel.bus.emit("error:critical", error, Origin(handler="start"))
            raise error
        await self.kernel.bus.emit("app:init", self.app)
        await self.kernel.bus.emit("app:start", self.app)
        watchdog = self.kernel.registry.get("service", "watchdog")
        if watchdog is not None:
            await watchdog.value.begin()

    def _names(self) -> set[str]:
        """Return the names of all plugins that were found, those that failed included."""
        known = {record.name for record in self.kernel.records()}
        return {*known, *self.report.failed, *self.report.skipped}

    async def stop(self) -> None:
        """Fire `app:stop` and unload everything, the last to come first; twice is fine."""
        task = self._task
        if task is None:
            return
        if self._state == "starting":
            task.cancel()
        elif self._state == "running":
            self._state = "stopping"
        self._stopping.set()
        await asyncio.wait([task])
        if self._task is task:
            self._task = None
            if not task.cancelled():
                task.result()

    async def restart(self) -> None:
        """Fire `app:restart`, stop, and start again."""
        await self.kernel.bus.emit("app:restart", self.app)
        await self.stop()
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # -- plugins

    async def load_plugin(
        self, plugin: Form, config: Mapping[str, Any] | None = None
    ) -> PluginRecord:
        """Load a plugin.

        Args:
            plugin: Its name, its path, or the plugin in any form.
            config: Its configuration, over its section in the settings.

        Returns:
            The plugin: `.name`, `.version`, `.module`, `.exports`, `.config`, `.state`, `.active`.

        Raises:
            NotFoundError: There is no such plugin.
            VekoError: It cannot be loaded; see `Kernel.load`. A `load()` that raised or hung was
                tried `max_retries` times more, each time with a fresh generation.
        """
        self._check_running("it loads no plugins")
        return await self._loading.load(plugin, config)

    async def load_all_plugins(self) -> LoadReport:
        """Load everything that is found, each as soon as what it needs is there.

        Returns:
            What was loaded, what failed and why, what was skipped because of that.
        """
        self._check_running("it loads no plugins")
        self.report = await self._loading.load_all()
        return self.report

    async def unload_plugin(self, name: str, *, cascade: bool = False) -> None:
        """Unload a plugin; nothing that it registered is left.

        Args:
            name: The plugin's name.
            cascade: Unload the plugins that need it first, instead of refusing.

        Raises:
            NotFoundError: It is not loaded.
            DependencyError: Active plugins need it.
        """
        self._application(name)
        await self.kernel.unload(name, cascade=cascade)

    async def reload_plugin(
        self, name: str, config: Mapping[str, Any] | None = None
    ) -> PluginRecord:
        """Replace a plugin by what its source is now; the old one stays if that fails.

        Args:
            name: The plugin's name.
            config: Merged over the configuration that it has.

        Raises:
            NotFoundError: It is not loaded.
            VekoError: The new version cannot be loaded; the old one never stopped.
        """
        self._application(name)
        return await self._loading.reload(name, config)

    async def toggle_plugin(
        self, name: str, active: bool | None = None, *, cascade: bool = False
    ) -> bool:
        """Switch a plugin on or off, or over if `active` is left out.

        Returns:
            Whether it is on now.

        Raises:
            NotFoundError: It is not loaded.
            DependencyError: Active plugins need it, or what it needs is off.
        """
        is_on = await self.kernel.toggle(name, active, cascade=cascade)
        health = self.kernel.registry.get("service", "health")
        if health is not None and not is_on:
            health.value.release(name)  # its breaker may have had it off already
        return is_on

    async def validate_plugin(self, path: str | Path) -> ValidationReport:
        """Say what would keep a plugin from being loaded here, and what is odd about it.

        No code of it runs where its source tells enough: a manifest of literals and plain
        functions. Where it does not, its module is imported and let go of; `load` never runs.

        Args:
            path: Its file or folder, or its name.
        """
        report: ValidationReport = await self.use("validation").validate(path)
        return report

    def get_plugin(self, name: str) -> PluginRecord | None:
        """Return a loaded plugin of the application, or `None`."""
        record = self.kernel.get(name)
        return record if record is not None and record.loaded and not record.core else None

    def list_plugins(self, core: bool = False) -> list[PluginInfo]:
        """Return what is known of the loaded plugins, in order of arrival.

        Args:
            core: List the core plugins instead.
        """
        records = (r for r in self.kernel.records() if r.loaded and r.core is core)
        return [info_of(record) for record in records]

    def get_stats(self) -> Stats:
        """Return counts of the application's plugins and of what they registered."""
        uptime = time.monotonic() - self._began if self._state == "running" else 0.0
        return stats_of(self.kernel, uptime)

    def check_plugin_health(self, name: str) -> PluginHealth:
        """Tell how a plugin fares, and why.

        Raises:
            NotFoundError: There is no plugin of that name.
            ServiceError: The core plugin `health` is left out or switched off.
        """
        health: PluginHealth = self.use("health").check(name)
        return health

    @property
    def metrics(self) -> Metrics:
        """Calls and latency by plugin: `manager.metrics.get(name)`.

        Raises:
            ServiceError: Nothing is measured: `enable_metrics` is off, or the manager is.
        """
        entry = self.kernel.registry.get("service", "metrics")
        if entry is None:
            raise ServiceError(
                "nothing is measured",
                remedy="Set enable_metrics, and ask while the manager runs.",
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
            duration: For how many seconds.
            path: Where the flame graph goes, a page for a browser, or a file for speedscope if it
                ends in `.json`; `.veko/profiles/<name>-<time>.html` if left out.
            memory: Whether to trace its allocations too, which slows everything down meanwhile.

        Raises:
            NotFoundError: There is no such plugin.
            OptionError: pyinstrument is not installed, or the file cannot be written.
            StateError: Something is being profiled already.
        """
        profile: PluginProfile = await self.use("profiling").profile(
            name, duration, path=path, memory=memory
        )
        return profile

    def error_count(self, name: str) -> int:
        """Return how often a plugin's code failed since it was loaded; 0 if it is not here."""
        record = self.kernel.get(name)
        return record.error_count if record is not None else 0

    def _application(self, name: str) -> PluginRecord:
        if self.state in ("created", "stopped"):
            raise NotFoundError(
                f"the manager is {self.state}, so no plugin {name!r} is loaded",
                plugin=name,
                remedy="Start it first: `async with manager`, or `await manager.start()`.",
            )
        record = self.get_plugin(name)
        if record is None:
            known = ", ".join(info.name for info in self.list_plugins()) or "none"
            raise NotFoundError(
                f"no plugin {name!r} is loaded", plugin=name, remedy=f"Loaded: {known}."
            )
        return record

    # -- states and backups

    async def save_state(self) -> Path:
        """Write down which plugins are on, with what configuration, in `.veko/state.jsonl`.

        Secrets are left out. The file is written whole or not at all, whatever kills the process.

        Raises:
            BackupError: It cannot be written; the state saved before stays.
        """
        path: Path = await self.use("state").save()
        return path

    async def restore_state(self) -> StateReport:
        """Switch, load and configure the plugins as `save_state` wrote them down.

        Returns:
            What was done, which plugins are no more, and which could not be made so.

        Raises:
            BackupError: No state was saved, or its file is damaged; nothing has changed.
        """
        report: StateReport = await self.use("state").restore()
        return report

    async def backup_plugins(self, path: str | Path | None = None) -> Path:
        """Write plugins, states, configurations and the storage into one file.

        Args:
            path: Where; `.veko/backups/<UTC time>.jsonl` if left out. Nothing is overwritten.

        Returns:
            Where it is.

        Raises:
            BackupError: It cannot be written there; nothing is left of it.
            StorageError: The storage cannot be read.
        """
        written: Path = await self.use("backup").save(path)
        return written

    async def restore_plugins(self, path: str | Path) -> RestoreReport:
        """Give plugins the configuration, the state and the storage that a backup has.

        The application's plugins stop for it and start anew. All of it is done, or nothing.

        Raises:
            BackupError: The file is not a sound backup, or of plugins that are not here or would
                refuse it; nothing has changed, no plugin has stopped.
            VekoError: A step failed; all is as it was before.
        """
        report: RestoreReport = await self.use("backup").restore(path)
        return report

    # -- events, services, commands

    @property
    def state(self) -> str:
        """`created`, `starting`, `running`, `stopping` or `stopped`."""
        return self._state

    @property
    def bus(self) -> Bus:
        """The event bus."""
        return self.kernel.bus

    def on(self, event: str, fn: Callable[..., object]) -> Observer:
        """Observe an event; observers change nothing, and stay over a restart.

        Args:
            event: The event's name, or a pattern.
            fn: `def` or `async def`; gets the event's arguments, cut to what it accepts.

        Returns:
            The observer; `cancel()` ends it, as `off` does.
        """
        return self._signals.on(event, fn)

    def off(self, event: str, fn: Callable[..., object]) -> None:
        """Stop observing; nothing happens if it did not observe."""
        self._signals.off(event, fn)

    @property
    def signals(self) -> Signals:
        """The blinker signal of each event: `manager.signals["plugin:loaded"]`."""
        return self._signals

    def unwatch(self, *patterns: str) -> None:
        """Fire no `file:*` events any more for some files; kept over a restart.

        Args:
            patterns: As `watch_ignore` has them: `"*.log"`, `"data/*"`; see `Watch.unwatch`.

        Raises:
            StateError: Nothing is watched: it does not run, or not with `watch_mode`.
            OptionError: A pattern is none.
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
        """The subscriptions by event or pattern, in their order."""
        registry = self.kernel.registry
        return {
            str(key): tuple(entry.value for entry in registry.all(kind, key))
            for kind in ("hook", "pattern")
            for key in registry.keys(kind)
        }

    def events(self) -> list[Event]:
        """Return the declared events, by name."""
        return sorted(self.kernel.bus.events, key=lambda event: event.name)

    def use(self, name: str) -> Any:
        """Return a service.

        Raises:
            ServiceError: It is not there; the message says why.
        """
        self._check_running(f"there is no service {name!r}")
        return self.kernel.use(name)

    def _check_running(self, consequence: str) -> None:
        if self.state in ("created", "stopped"):
            raise ServiceError(
                f"the manager is {self.state}, so {consequence}",
                remedy="Start it first: `async with manager`, or `await manager.start()`.",
            )

    async def run_command(self, name: str, *args: object, **kwargs: object) -> object:
        """Run a plugin's command and return what it returns.

        Raises:
            NotFoundError: There is no such command.
        """
        return await self.use("commands").run(name, *args, **kwargs)

    # -- making plugins

    @staticmethod
    def create_plugin_builder() -> PluginBuilder:
        """Return a builder: `.name(…).version(…).route(…).hook(…).build()`."""
        return PluginBuilder()

    @staticmethod
    def create_simple_plugin(name: str, load: Callable[..., Any], **manifest: Any) -> Plugin:
        """Make a plugin of a function.

        Args:
            name: The plugin's name.
            load: Its `load`.
            manifest: Other manifest fields; `version` is `1.0.0` if left out.
        """
        return simple_plugin(name, load, **manifest)


def _root_of(plugins_dir: object) -> Path | None:
    """Tell the application's directory from the (first) plugins folder that was given."""
    if isinstance(plugins_dir, list | tuple) and plugins_dir:
        plugins_dir = plugins_dir[0]
    if not isinstance(plugins_dir, str | Path) or not Path(plugins_dir).is_absolute():
        return None
    folder = Path(plugins_dir)
    return folder.parent if folder.name == "plugins" else folder

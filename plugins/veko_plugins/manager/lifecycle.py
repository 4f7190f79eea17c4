"""The manager's own life: start, stop, restart.

The kernel lives in one task of the manager's own, from start to stop, so that `start()` and
`stop()` may be called from different tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from veko import Kernel, Origin
from veko.errors import LoadError, StateError

from .._source.loading import Loading
from .._source.source import Kept
from ..options import Options
from ..reports import LoadReport
from ..signals import Signals
from .composition import core_plugins, kernel_of
from .kept import switch_off_again
from .option_checks import ineffective, refuse_unsafe, unrequired_guards

__all__ = ["Lifecycle"]

_log: Final = logging.getLogger("veko.manager")


class Lifecycle:
    """Starts and stops a kernel with the core plugins and what they find.

    Args:
        app: Whatever the plugins extend.
        options: All options.

    Raises:
        OptionError: An option asks for protection that does not exist.
    """

    def __init__(self, app: Any, options: Options) -> None:
        refuse_unsafe(options)
        self.app = app
        self.options = options
        self.report = LoadReport()
        self.kernel: Kernel = kernel_of(app, options)
        self._state = "created"
        self._signals: Signals = options.core.get("signals") or Signals()
        self._unwatched: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._home = contextvars.copy_context()
        self._stopping = asyncio.Event()
        self._started_at = 0.0
        self._loading: Loading | None = None

    @property
    def state(self) -> str:
        """`created`, `starting`, `running`, `stopping` or `stopped`."""
        return self._state

    async def start(self) -> None:
        """Start the core plugins, load what is found (`auto_load`), fire `app:init`, `app:start`.

        Raises:
            LoadError: A plugin did not load that the option `required` names, or whose manifest
                says `required = True`; nothing is left running.
            StateError: It is running already.
        """
        if self._state not in ("created", "stopped"):
            raise StateError(f"the manager is {self._state}", remedy="Stop it first.")
        # What a restart runs in: not in the context of the request or the hook that asks for it.
        self._home = contextvars.copy_context()
        await self._start({})

    async def _start(self, kept: Mapping[str, Kept]) -> None:
        self._state = "starting"
        self._stopping = asyncio.Event()  # of this loop: it may have run in another
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(started, kept), name="veko")
        try:
            await started
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self._task.cancel()  # or it would continue to load
            with contextlib.suppress(asyncio.CancelledError):
                await self._stop()
            raise
        self._state = "running"

    async def _run(self, started: asyncio.Future[None], kept: Mapping[str, Kept]) -> None:
        """Hold the kernel from start to stop, in one task."""
        self._started_at = time.monotonic()
        try:
            async with self.kernel:
                try:
                    await self._boot(kept)
                except BaseException as error:
                    self._state = "stopping"
                    if started.done():
                        raise
                    stopped = isinstance(error, asyncio.CancelledError)
                    started.set_exception(
                        StateError("the manager was stopped while it started") if stopped else error
                    )
                else:
                    started.set_result(None)
                    await self._stopping.wait()
                    await self.kernel.bus.emit("app:stop", self.app)
        finally:
            self._state, self._loading = "stopped", None
            if not started.done():
                started.cancel()

    async def _boot(self, kept: Mapping[str, Kept]) -> None:
        for line in self.options.warnings:
            _log.warning("%s", line)
        for variable in self.options.ignored:
            _log.debug("%s is ignored: Kubernetes sets it for a service", variable)
        for plugin in core_plugins(self.options, self._signals, self._unwatched, self):
            manifest = plugin.manifest
            section = self.options.sections.of(manifest.name, manifest)
            await self.kernel.load(plugin, section or None)
        if self.options.auto_load or kept:
            among = None if self.options.auto_load else ()
            self.report = await self._get_loading().load_all(among, kept=kept)
            await switch_off_again(self.kernel, kept)
        for line in ineffective(self.options, self._found_names()):
            _log.warning("%s", line)
        await self._require(dict.fromkeys((*self.options.required, *self.report.required)))
        for line in unrequired_guards(self.kernel, self.options.required):
            _log.warning("%s", line)
        await self.kernel.bus.emit("app:init", self.app)
        await self.kernel.bus.emit("app:start", self.app)
        watchdog = self.kernel.registry.get("service", "watchdog")
        if watchdog is not None:
            await watchdog.value.begin()

    def _get_loading(self) -> Loading:
        """Return the service `loading`; it stays the same from start to stop.

        Raises:
            ServiceError: It was left out.
        """
        loading = self._loading
        if loading is None:
            loading = self._loading = self.kernel.use("loading")
        return loading

    def _found_names(self) -> set[str]:
        """Return the names of all plugins that were found, including those that failed."""
        known = {record.name for record in self.kernel.records()}
        return {*known, *self.report.failed, *self.report.skipped, *self.report.off}

    async def _require(self, names: Iterable[str]) -> None:
        """Refuse to start without some plugins."""
        loaded = {one.name for one in self.kernel.records() if one.loaded and not one.core}
        missing = [name for name in names if name not in loaded]
        if missing:
            why = "; ".join(f"{name}: {self.report.why(name)}" for name in missing)
            error = LoadError(
                f"required plugins did not load: {why}",
                step="start",
                remedy="Fix them: the option `required` or their manifests require them.",
            )
            await self.kernel.bus.emit("error:critical", error, Origin(handler="start"))
            raise error

    async def stop(self) -> None:
        """Fire `app:stop` and unload everything in reverse order; twice is fine.

        A plugin's own code may await it; it is not waited for.

        Raises:
            StateError: It is called from within an operation on a plugin.
        """
        if asyncio.current_task() is self._task and self._state == "stopping":
            return  # a handler of app:stop: awaiting its own end would never return
        self.kernel.detach()
        restarting = self._restarting
        if restarting is not None and restarting is not asyncio.current_task():
            restarting.cancel()  # or it would start again
            await asyncio.wait([restarting])
        await self._stop()

    async def _stop(self) -> None:
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
        """Fire `app:restart`, stop, and start again with the plugins that are loaded now.

        They are loaded from where they came from, with the configuration that they have, and those
        that are switched off stay so; what has come into the plugin folders is loaded too.

        A plugin's own code may await it: a request is answered and a hook returns once the
        manager is back, a task of the plugin ends with the plugin. Awaited while a restart is
        under way, it waits for that one.

        Raises:
            StateError: The manager is starting or stopping, or this is called from within an
                operation on a plugin.
            VekoError: It did not start again; see `start`.
        """
        current = asyncio.current_task()
        if current in (self._task, self._restarting) or (
            self._restarting is None and self._state in ("starting", "stopping")
        ):
            raise StateError(
                f"the manager is {self._state} and cannot restart",
                remedy="Restart it while it runs, for instance in a route or a command.",
            )
        self.kernel.detach()
        if self._restarting is None:
            # In a task of the manager's own: the caller may be a plugin's, and ends with that.
            self._restarting = asyncio.create_task(
                self._restart(), name="veko restart", context=self._home.copy()
            )
            self._restarting.add_done_callback(self._restarted)
        restarting = self._restarting
        await asyncio.wait([restarting])
        if restarting.cancelled():
            raise StateError("the manager was stopped while it restarted")
        restarting.result()

    async def _restart(self) -> None:
        await self.kernel.bus.emit("app:restart", self.app)
        kept = self._get_loading().kept() if self._state == "running" else {}
        await self._stop()
        await self._start(kept)

    def _restarted(self, task: asyncio.Task[None]) -> None:
        self._restarting = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("the manager did not start again: %s", error)

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

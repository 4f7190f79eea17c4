"""The manager's own life: start, stop, restart.

The kernel lives in one task of the manager's own, from start to stop, so that `start()` and
`stop()` may be called from different tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Self

from veko import Kernel, Origin
from veko.errors import LoadError, StateError

from .._source.loading import Loading
from ..options import Options
from ..reports import LoadReport
from ..signals import Signals
from .composition import core_plugins, kernel_of
from .option_checks import ineffective, refuse_unsafe

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
            LoadError: A plugin listed in `required` did not load; nothing is left running.
            StateError: It is running already.
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
                self._task.cancel()  # or it would continue to load
            with contextlib.suppress(asyncio.CancelledError):
                await self.stop()
            raise
        self._state = "running"

    async def _run(self, started: asyncio.Future[None]) -> None:
        """Hold the kernel from start to stop, in one task."""
        self._started_at = time.monotonic()
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

    async def _boot(self) -> None:
        for plugin in core_plugins(self.options, self._signals, self._unwatched):
            await self.kernel.load(plugin, self.options.plugins.get(plugin.manifest.name))
        if self.options.auto_load:
            self.report = await self._get_loading().load_all()
            for line in ineffective(self.options, self._found_names()):
                _log.warning("%s", line)
        await self._require(self.options.required)
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
        return {*known, *self.report.failed, *self.report.skipped}

    async def _require(self, names: Iterable[str]) -> None:
        """Refuse to start without some plugins."""
        loaded = {one.name for one in self.kernel.records() if one.loaded and not one.core}
        missing = [name for name in names if name not in loaded]
        if missing:
            why = "; ".join(f"{name}: {self.report.why(name)}" for name in missing)
            error = LoadError(
                f"required plugins did not load: {why}",
                step="start",
                remedy="Fix them, or remove them from `required`.",
            )
            await self.kernel.bus.emit("error:critical", error, Origin(handler="start"))
            raise error

    async def stop(self) -> None:
        """Fire `app:stop` and unload everything in reverse order; twice is fine."""
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

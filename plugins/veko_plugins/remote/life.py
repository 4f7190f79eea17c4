"""A life: one generation of a plugin whose code runs in a worker, as the host knows it.

What the plugin registers are functions of the host that call the worker. While the worker is down
they do what `on_crash` says: refuse, or pass by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final

from veko import Context, Manifest

from ..http import HTTPError
from .protocol import ConnectionLost, Overloaded, RemoteFunction
from .python.errors import across
from .worker import Worker, WorkerLost

if TYPE_CHECKING:
    from .permissions import Grants

__all__ = ["Life", "unavailable"]

RETRY: Final = {"retry-after": "1"}


def unavailable(plugin: str) -> HTTPError:
    """Return the answer while the process of a plugin is down; it counts against nobody."""
    error = HTTPError(503, "The plugin is being restarted.", headers=RETRY)
    error.plugin = plugin
    error.counts = False
    return error


class Life:
    """One generation in a worker.

    Args:
        name: The plugin's name.
        kind: `script` or `python`: what the worker runs.
        grants: What it may do; `None` for everything.

    Attributes:
        worker: The worker.
        manifest: The plugin's manifest, once it is known.
        context: Its context at the host, once `load` runs.
        live: Whether it has been loaded: then a crash makes it restart.
        faults: What its registrations raised while `load` ran.
    """

    worker: Worker
    manifest: Manifest

    def __init__(self, name: str, kind: str, grants: Grants | None) -> None:
        self.name = name
        self.kind = kind
        self.grants = grants
        self.context: Context | None = None
        self.live = False
        self.faults: list[Exception] = []
        self._gate: asyncio.Future[None] | None = None
        self._handing_over: asyncio.Task[None] | None = None

    @property
    def is_python(self) -> bool:
        """Whether the worker is a Python worker."""
        return self.kind != "script"

    @property
    def down(self) -> bool:
        """Whether the worker has ended."""
        return self.worker.why is not None or self.worker.connection.closed

    def refuses(self, guards: bool) -> bool:
        """Return whether what the plugin registered refuses while the worker is down.

        Args:
            guards: Whether it decides what may pass.
        """
        choice = self.manifest.on_crash
        return guards if choice is None else choice == "closed"

    async def call(self, target: str | RemoteFunction, *args: Any) -> Any:
        """Call the worker.

        Raises:
            WorkerLost: It has ended.
            Exception: What was raised there.
        """
        if self._gate is not None:
            await asyncio.shield(self._gate)
        try:
            if isinstance(target, str):
                return await across(self.worker.connection.call(target, *args))
            return await across(target(*args))
        except (ConnectionLost, Overloaded) as error:
            raise self.lost(error) from None

    def lost(self, error: Exception) -> WorkerLost:
        """Return why the worker cannot be called, as an error with a traceback of its own."""
        why = self.worker.why
        if why is None:
            return WorkerLost(str(getattr(error, "message", error)), plugin=self.name)
        return WorkerLost(why.message, plugin=self.name, remedy=why.remedy)

    def note(self, method: str, *args: Any) -> None:
        """Call the worker without an answer; one that has ended misses it."""
        try:
            self.worker.connection.note(method, *args)
        except (ConnectionLost, Overloaded, TypeError, ValueError):
            return

    def wait_for(self, work: Awaitable[object]) -> None:
        """Let all calls wait until some work is done."""
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gate = gate

        async def run() -> None:
            try:
                await work
            finally:
                self._gate = None
                gate.set_result(None)

        self._handing_over = asyncio.get_running_loop().create_task(run())

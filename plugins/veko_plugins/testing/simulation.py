"""The life of a plugin as a scenario for `veko.testing.simulate`, with others around it.

In each run the plugin is loaded, then it and its neighbours are reloaded, switched, unloaded and
loaded again, up to three operations at once and some of them cancelled, while its routes are
called. One neighbour uses its services, one listens slowly to every event, one crashes.

A run fails if the plugin's code fails or does not end in time, if what it has registered after an
operation differs from what it registered at first, and for all that `simulate` finds by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import anyio
import anyio.lowlevel

from veko import Context, Kernel, PluginRecord
from veko.errors import LoadError, VekoError
from veko.testing import Simulation

from .._source.source import Form
from .asgi import App, request

__all__ = ["Managed", "PluginLife"]

_SETTLED: Final = 120.0
"""Virtual seconds after which calls and tasks that were cut have ended."""
_OPERATIONS: Final = 8
_KINDS: Final = ("hook", "service", "route", "middleware", "websocket", "command", "attach")


class Managed(Protocol):
    """What the scenario needs of a `PluginManager`."""

    @property
    def kernel(self) -> Kernel:
        """The kernel."""
        ...

    @property
    def asgi(self) -> App:
        """The ASGI application."""
        ...

    async def load_plugin(
        self, plugin: Form, config: Mapping[str, Any] | None = None
    ) -> PluginRecord:
        """Load a plugin."""
        ...

    async def unload_plugin(self, name: str, *, cascade: bool = False) -> None:
        """Unload a plugin."""
        ...

    async def reload_plugin(
        self, name: str, config: Mapping[str, Any] | None = None
    ) -> PluginRecord:
        """Reload a plugin."""
        ...


Workload = Callable[[Simulation, Any], Awaitable[object]]


class PluginLife:
    """A scenario: `simulate(PluginLife(make_manager, "plugins/shop.py"))`.

    Args:
        manager: Makes a manager that has no plugins yet and needs no threads and sockets
            (`auto_load=False, watchdog=0, storage="memory:", adapter="asgi", max_retries=0`).
        plugin: The plugin, in any form that `load_plugin` takes.
        workload: An `async def` that gets the simulation and the manager and uses the plugin
            meanwhile; what it raises, apart from `VekoError`, fails the run.
    """

    def __init__(
        self,
        manager: Callable[[], AbstractAsyncContextManager[Managed]],
        plugin: Form,
        *,
        workload: Workload | None = None,
    ) -> None:
        self._manager, self._plugin, self._workload = manager, plugin, workload
        self.__name__ = "life of a plugin"

    async def __call__(self, simulation: Simulation) -> None:
        """Run it once."""
        async with self._manager() as manager:
            record = await manager.load_plugin(self._plugin)
            life = _Life(simulation, manager, record.name, self._plugin)
            await life.live(self._workload)


class _Life:
    def __init__(self, simulation: Simulation, manager: Managed, name: str, plugin: Form) -> None:
        self.simulation, self.manager, self.kernel = simulation, manager, manager.kernel
        self.name, self.plugin = name, plugin
        self.faults: list[BaseException] = []
        kernel = self.kernel
        kernel.bus.on("plugin:error", self._failed, observe=True)
        self.others = {
            "simulated-user": self._user(),
            "simulated-listener": self._listener(),
            "simulated-crash": self._crash(),
        }

    def _failed(self, name: str, error: BaseException) -> None:
        if name not in self.others:
            self.faults.append(error)

    async def live(self, workload: Workload | None) -> None:
        await anyio.sleep(_SETTLED)
        self.first = self._registered()
        for other in self.others.values():
            await self.manager.load_plugin(other)
        for _ in self.simulation.times(_OPERATIONS):
            async with anyio.create_task_group() as group:
                for _ in range(self.simulation.integer(1, 3)):
                    group.start_soon(self._operate, name="an operation")
                for _ in range(self.simulation.integer(0, 2)):
                    group.start_soon(self._request, name="a request")
                if workload is not None:
                    group.start_soon(self._work, workload, name="the workload")
            await anyio.sleep(_SETTLED)
            self._check()
        if self._record() is not None:
            await self.manager.unload_plugin(self.name, cascade=True)
        self._check()

    async def _work(self, workload: Workload) -> None:
        try:
            await workload(self.simulation, self.manager)
        except VekoError as error:  # the plugin may be off at this moment
            self.simulation.note(f"the workload: {error}")

    async def _operate(self) -> None:
        simulation = self.simulation
        name = simulation.choose([self.name, self.name, *self.others])
        verb = simulation.choose(["reload", "switch", "unload", "load"])
        await simulation.pause()
        simulation.note(f"{verb} {name}")
        try:
            await simulation.interrupted(self._do(verb, name))
        except LoadError as error:
            if self.name in (name, error.plugin):
                raise
            simulation.note(f"  {error}")
        except VekoError as error:  # refused, as it may be
            simulation.note(f"  {error}")

    async def _do(self, verb: str, name: str) -> None:
        manager, cascade = self.manager, self.simulation.chance()
        match verb:
            case "load":
                await manager.load_plugin(self.others.get(name, self.plugin))
            case "unload":
                await manager.unload_plugin(name, cascade=cascade)
            case "switch":
                await self.kernel.toggle(name, cascade=cascade)
            case "reload" if name in self.others:
                await self.kernel.reload(self.others[name])
            case _:
                await manager.reload_plugin(name)

    async def _request(self) -> None:
        """Call one of the plugin's routes that need nothing to be filled in."""
        await self.simulation.pause()
        paths = sorted(
            route.path
            for entry in self.kernel.registry.entries("route")
            for route in [getattr(entry.value, "route", entry.value)]
            if getattr(route, "method", "") == "GET" and "{" not in route.path
        )
        if paths and self._record() is not None:
            path = self.simulation.choose(paths)
            self.simulation.note(f"GET {path}")
            await self.simulation.interrupted(request(self.manager.asgi, "GET", path))

    # -- what must hold

    def _check(self) -> None:
        if self.faults:
            raise self.faults[0]
        record = self._record()
        registered = self._registered()
        if record is None or not record.active:
            assert not registered, f"it is {_state(record)}, and still has {_shown(registered)}"
        else:
            more, fewer = registered - self.first, self.first - registered
            assert not more, f"more than when it was loaded first: {_shown(more)}"
            assert not fewer, f"fewer than when it was loaded first: {_shown(fewer)}"

    def _record(self) -> PluginRecord | None:
        record = self.kernel.get(self.name)
        return record if record is not None and record.loaded else None

    def _registered(self) -> Counter[tuple[str, str]]:
        registry = self.kernel.registry
        return Counter(
            (kind, str(entry.key))
            for kind in _KINDS
            for entry in registry.entries(kind)
            if getattr(entry.owner, "name", entry.owner) == self.name
        )

    # -- the neighbours

    def _user(self) -> dict[str, Any]:
        def load(context: Context) -> None:
            for entry in self.kernel.registry.entries("service"):
                if getattr(entry.owner, "name", None) == self.name:
                    context.use(str(entry.key))

        return {
            "name": "simulated-user",
            "version": "1.0.0",
            "dependencies": [self.name],
            "load": load,
        }

    def _listener(self) -> dict[str, Any]:
        def load(context: Context) -> None:
            async def listen(*_: object) -> None:
                for _turn in range(self.simulation.integer(0, 2)):
                    await anyio.lowlevel.checkpoint()

            context.hook("**", listen, priority=1_000, observe=True)

        return {"name": "simulated-listener", "version": "1.0.0", "load": load}

    def _crash(self) -> dict[str, Any]:
        def load(context: Context) -> None:
            async def crash(*_: object) -> None:
                await anyio.lowlevel.checkpoint()
                raise RuntimeError("the neighbour crashes")

            context.hook("plugin:loaded", crash, observe=True)
            context.spawn(crash)

        return {"name": "simulated-crash", "version": "1.0.0", "load": load}


def _state(record: PluginRecord | None) -> str:
    return "unloaded" if record is None else str(record.state)


def _shown(registered: Counter[tuple[str, str]]) -> str:
    return ", ".join(f"{kind} {key}" for kind, key in sorted(registered.elements()))

"""The guest: one plugin in a small application of its own, run by the host's calls.

A real kernel runs the plugin, with the core plugins that its context needs. The worker's bus calls
none of the plugin's hooks: the host's bus does, over the border. The life cycle is the host's too.
`load` runs the plugin's `load()` and stops before the acceptance; `activate` continues, so that
what cannot be accepted (a route with a bad signature) fails the load as it does in process.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from veko import Origin, PluginRecord
from veko.errors import NotFoundError, StateError
from veko.extend import Draft

from ..._lib.permissions import parse_permission
from ...config import Config
from ..permissions import Grants
from ..protocol import Connection, ConnectionLost, Overloaded
from .application import App, WorkerKernel, core_plugins
from .audit import Audit, Environment
from .calls import Calls
from .described import describe, exported
from .errors import across
from .failures import contained
from .importing import import_plugin
from .kinds import Stored
from .mirror import Mirror, Note
from .neighbours import Neighbour, Neighbours
from .network import Network
from .records import set_levels
from .resident import Resident
from .stored import StoredMirror
from .verbs import Verbs

__all__ = ["Guest"]

_CHANNEL: Final = 3
"""The descriptor of the channel to the host's broker."""
_NO_STORAGE: Final = "the storage is off (storage = 'none')"


def _quietly(note: Note, *args: Any) -> None:
    with contextlib.suppress(ConnectionLost, Overloaded):  # there is nobody to tell
        note(*args)


class Guest:
    """One plugin, and what the host may ask of it.

    Attributes:
        methods: What the host may call, by name.
        notes: What the host may call without an answer, by name.
        app: What the plugin gets as `app`.
        ready: Set when it can be called.
    """

    def __init__(self) -> None:
        methods: dict[str, Callable[..., Any]] = {
            "describe": self._describe,
            "load": self._load,
            "activate": self._activate,
            "deactivate": self._deactivate,
            "unload": self._unload,
            "export_state": self._export_state,
            "import_state": self._import_state,
            "check_config": self._check_config,
            "plugin_call": self._plugin_call,
        }
        self.methods = {name: contained(method) for name, method in methods.items()}
        self.notes: dict[str, Callable[..., Any]] = {
            "storage_changed": self._storage_changed,
            "plugins": self._plugins,
            "services": self._services,
            "config": self._config,
            "levels": set_levels,
            "shutdown": self.end,
        }
        self.app = App()
        self._kernel = WorkerKernel(self.app)
        self._calls = Calls(self._kernel)
        self._connection: Connection
        self._mirror: Mirror
        self._neighbours: Neighbours
        self._storage: StoredMirror | None = None
        self._resident: Resident | None = None
        self._generation: Any = None
        self._loading: asyncio.Task[PluginRecord] | None = None
        self.ready = asyncio.Event()
        self._ended = asyncio.Event()
        self._checks = Config({})
        self._audit: Audit | None = None

    @property
    def source(self) -> object:
        """The file or folder of the plugin; `None` before it is known."""
        return self._resident.source if self._resident is not None else None

    def known(self, info: Mapping[str, Any]) -> Neighbour:
        """Return the plugin of an info that the host sent."""
        return self._neighbours.known(info)

    async def stay(self, connection: Connection) -> None:
        """Live until the host ends it or is gone."""
        self._connection = connection
        self._mirror = Mirror(self._calls, connection.note, self._ask)
        self._neighbours = Neighbours(self._ask)
        kernel = self._kernel
        async with kernel:
            for core in core_plugins(self._checks, self.settle_in, self.failed):
                await kernel.load(core)
            before = kernel.bus.moved

            def moved(draft: Draft) -> None:
                before(draft)
                if self._generation is not None and self._generation.context is not None:
                    self._mirror.update(self._generation.entries)

            kernel.bus.moved = moved
            self.ready.set()
            await self._ended.wait()
            kernel.bus.moved = before

    async def ended(self) -> None:
        """Wait until the host ends the worker, or is gone."""
        await self._ended.wait()

    def end(self) -> None:
        """End the worker: the plugin unloads if it has not."""
        self._ended.set()

    async def _ask(self, method: str, *args: Any) -> Any:
        return await across(self._connection.call(method, *args))

    # -- the life of the plugin

    async def _describe(self, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        given = {**(self._connection.peer.get("plugin") or {}), **(facts or {})}
        if (granted := given.get("grants")) is not None and self._audit is None:
            self._watch(granted)  # before its code runs
        plugin = await import_plugin(given)
        self._resident = Resident(plugin, self._stand_by)
        return describe(plugin)

    def _watch(self, granted: Mapping[str, Any]) -> None:
        loop, note = asyncio.get_running_loop(), self._connection.note

        def send(*args: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_quietly, note, *args)

        self._audit = audit = Audit(
            Grants(
                permissions=tuple(map(parse_permission, granted["permissions"])),
                folder=Path(granted["folder"]),
                directory=Path(granted["directory"]),
                plugin=granted.get("plugin"),
                everything=granted.get("everything") is True,
            ),
            send,
        )
        if granted.get("brokered") is True:
            Network(socket.socket(fileno=_CHANNEL), audit.where).install()
        audit.install()
        Environment.install(audit)

    def _guest(self) -> Resident:
        if self._resident is None:
            raise StateError("the plugin was not imported yet", remedy="Call `describe` first.")
        return self._resident

    async def _load(self, setup: Mapping[str, Any]) -> None:
        resident = self._guest()
        for name, value in (setup.get("app") or {}).items():
            setattr(self.app, name, value)
        self._neighbours.begin(setup)
        entries = setup.get("storage")
        if entries is None:
            self._kernel.absent["storage"] = _NO_STORAGE
        else:
            self._storage = StoredMirror(resident.name, entries, self._store)
        self._loading = asyncio.create_task(
            self._kernel.load(resident, setup.get("config"), again=lambda error: True)
        )
        try:
            both: list[asyncio.Future[Any]] = [self._loading, resident.standing_by]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the host's time limit: what began is taken back
            self._loading.cancel()
            await asyncio.wait([self._loading])
            raise
        if self._loading.done():
            await self._outcome(self._loading)

    async def _stand_by(self) -> None:
        """Show the host what `load()` has registered, before it accepts that."""
        self._mirror.update(self._generation.entries)

    async def _outcome(self, operation: Awaitable[object]) -> None:
        """Await an operation; what the plugin's own step raised is raised as it was."""
        resident = self._guest()
        try:
            await operation
        except Exception as error:
            raised = resident.raised
            if raised is not None and raised is error.__cause__:
                raise raised from raised.__cause__
            raise

    async def _activate(self) -> None:
        resident, loading = self._guest(), self._loading
        if loading is not None and not loading.done():
            resident.go_on.set_result(None)
            await self._outcome(asyncio.shield(loading))
        else:
            await self._outcome(self._kernel.toggle(resident.name, True))
        self._mirror.late = True

    async def _deactivate(self) -> None:
        resident = self._guest()
        resident.raised, self._mirror.late = None, False
        await self._kernel.toggle(resident.name, False)
        self._mirror.update(self._generation.entries)
        self._raise_again(resident)

    async def _unload(self) -> None:
        resident, loading = self._guest(), self._loading
        resident.raised, self._mirror.late = None, False
        if loading is not None and not loading.done():
            refusal = StateError("the host does not take what it registers", plugin=resident.name)
            if not resident.go_on.done():
                resident.go_on.set_exception(refusal)
            await asyncio.wait([loading])
            loading.exception()
        elif self._is_loaded():  # else its load has failed, and it was unloaded then
            await self._kernel.unload(resident.name, force=True)
        if self._storage is not None:
            await self._storage.flush()
        self._raise_again(resident)

    def _is_loaded(self) -> bool:
        record = self._kernel.get(self._guest().name)
        return record is not None and record.loaded

    @staticmethod
    def _raise_again(resident: Resident) -> None:
        """Raise what the step raised, which the worker's kernel has only reported."""
        raised, resident.raised = resident.raised, None
        if isinstance(raised, Exception):
            raise raised

    def settle_in(self, generation: Any) -> None:
        """Give the context of the plugin's generation the verbs that cross the border."""
        self._generation = generation
        connection = self._connection
        Verbs(
            generation,
            self._ask,
            connection.note,
            self._neighbours,
            self._mirror,
            lambda: connection.current,
        ).install()
        if self._storage is not None:
            vars(generation.context)["storage"] = self._storage.namespace

    def failed(self, error: BaseException, origin: Origin) -> None:
        """Let the host know of a failure that no call of it has met: of a task, say."""
        resident = self._guest()
        if origin.handler not in resident.steps:
            self._connection.note("failed", error, origin.handler or "")

    # -- state, configuration, storage, exports

    def _export_state(self) -> object:
        export = self._guest().life_cycle("export_state")
        return Stored("the state", export()) if export is not None else None

    def _import_state(self, state: object, version: str = "") -> None:
        take = self._guest().life_cycle("import_state")
        if take is not None:
            take(state, version)

    def _check_config(self, config: object) -> None:
        resident = self._guest()
        self._checks.check(config, resident.manifest.config_schema, plugin=resident.name)

    def _config(self, config: Mapping[str, Any]) -> None:
        resident, generation = self._guest(), self._generation
        schema = resident.manifest.config_schema
        generation.config = self._checks.check(dict(config), schema, plugin=resident.name)
        generation.given = dict(config)

    async def _store(self, changes: dict[str, Stored], deleted: list[str], clear: bool) -> None:
        await self._ask("storage", changes, deleted, clear)

    def _storage_changed(self, changes: Mapping[str, Any], deleted: Sequence[str] = ()) -> None:
        if self._storage is not None:
            self._storage.changed(changes, list(deleted))

    def _plugins(self, infos: list[dict[str, Any]]) -> None:
        self._neighbours.plugins_are(infos)

    def _services(self, changed: Mapping[str, Any]) -> None:
        self._neighbours.services_are(changed)

    async def _plugin_call(
        self, name: str, args: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        resident = self._guest()
        found = exported(resident, name)
        if not callable(found):
            raise NotFoundError(f"{resident.name} exports no function {name!r}")
        answer = found(*args, **(named or {}))
        return await answer if inspect.isawaitable(answer) else answer

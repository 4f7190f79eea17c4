"""The kernel: the bus, and the life cycle of plugins over it.

Operations on one plugin are serialised, those on different plugins run side by side, all in
tasks of the kernel's root: a plugin may ask for its own unloading. Whatever a plugin registers
goes live in one swap when it was accepted, or not at all.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

import anyio
from anyio.abc import TaskStatus

from .._bus.frames import emissions_of_caller
from .._bus.pins import Pin
from .._bus.registry import Draft, Entry, Kind
from ..errors import (
    ConflictError,
    NotFoundError,
    StateError,
)
from . import context as _context
from . import events as _catalogue
from .config import as_config, merge, validated
from .context import Context
from .generation import Generation, Operation, PluginRecord, State
from .operations import Operations
from .plugin import Plugin, as_plugin
from .reload import Dependents, reload
from .runtime import Runtime
from .scope import Root
from .services import Services
from .steps import Steps
from .transactions import Transactions

__all__ = ["Kernel"]

_log: Final = logging.getLogger("veko")


class Kernel(Runtime):
    """An event bus and the plugins on it: `async with Kernel() as kernel`.

    It may be entered again when it was left; what the host subscribed on the bus is still there.

    Args:
        app: Whatever the plugins extend; they get it as `app`.
        timeout: Seconds that each life-cycle function of a plugin may take.
        drain_timeout: Seconds to wait for calls that still run in what is taken away.
        hook_timeout: Seconds that a plugin's async hook may take unless it says otherwise.
        enable_hooks: Whether the hooks of plugins (core ones apart) are dispatched.

    Attributes:
        bus: The event bus.
    """

    def __init__(
        self,
        app: Any = None,
        *,
        timeout: float = 30.0,
        drain_timeout: float = 30.0,
        hook_timeout: float | None = 5.0,
        enable_hooks: bool = True,
    ) -> None:
        super().__init__(
            app,
            timeout=timeout,
            drain_timeout=drain_timeout,
            hook_timeout=hook_timeout,
            enable_hooks=enable_hooks,
        )
        self.bus.change(add=[Entry("kind", n, Kind(n, unique=True)) for n in ("service", "attach")])
        for event in (*_catalogue.EVENTS, *_context.EVENTS):
            self.bus.declare(event)
        self.bus.moved = self._moved
        self.services = Services(self)
        self._transactions = Transactions(self)
        steps = Steps(self, self._transactions, self._context)
        self._operations = Operations(self, self._transactions, steps)
        self._closing: anyio.Event
        self._stack: AsyncExitStack

    # -- the kernel's own life

    async def __aenter__(self) -> Self:
        if hasattr(self, "root") and not self.root.closed:
            raise StateError(
                "the kernel is open already", remedy="Leave it first, or make another."
            )
        self._records.clear()
        self._closing, self._stack = anyio.Event(), AsyncExitStack()
        group = await self._stack.enter_async_context(anyio.create_task_group())
        await group.start(self._hold_root)
        return self

    async def _hold_root(self, *, task_status: TaskStatus[None]) -> None:
        """Hold the root: a cancelled host does not reach into it, so plugins unload in order."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                self.root = Root(group)
                self.root.start(self._posts.run)
                task_status.started()
                await self._closing.wait()
                group.cancel_scope.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.root.begin_to_close()
        with anyio.CancelScope(shield=True):
            for record in reversed(self.records()):
                if record.loaded:
                    try:
                        await self.unload(record.name, force=True)
                    except Exception as failure:
                        _log.exception("unloading %s failed", record.name, exc_info=failure)
            for record in self.records():
                for retirement in tuple(record.retiring):
                    await retirement.done.wait()
            await self._posts.flush()
        self.root.close()
        self._closing.set()
        await self._stack.__aexit__(kind, error, trace)

    def use(self, name: str, *, by: Generation | None = None) -> Any:
        """Return a service.

        Args:
            name: The service's name.
            by: Who asks; it depends on the provider from then on.

        Raises:
            ServiceError: It is not there; the message says why.
        """
        return self.services.use(name, by=by)

    async def when(self, name: str, *, by: Generation | None = None) -> Any:
        """Wait until a service is there, and return it."""
        return await self.services.when(name, by=by)

    # -- the life of plugins

    async def load(
        self,
        plugin: Plugin | type[Plugin] | Mapping[str, Any],
        config: Any = None,
        *,
        retried: bool = False,
    ) -> PluginRecord:
        """Load a plugin: `load()`, acceptance, `activate()`, and everything goes live at once.

        Args:
            plugin: A subclass of `Plugin` or an instance, a mapping, or a module.
            config: Its configuration, merged over its `default_config`.
            retried: Whether a `load()` or `activate()` that fails is tried again by the caller;
                `error:critical` then does not tell of it.

        Returns:
            The plugin's record.

        Raises:
            ManifestError: It is not a sound plugin.
            ConflictError: A plugin of that name is loaded, or what it registers is taken.
            DependencyError: A plugin that it needs is not active.
            ConfigError: Its configuration was refused.
            LoadError: `load()` or `activate()` raised, or did not end in time (`LoadTimeout`).
            RefusedError: A hook refused it.
            StateError: The kernel is closing.
        """
        self.check_not_closing()
        made = as_plugin(plugin) if getattr(plugin, "manifest", None) is None else plugin
        assert isinstance(made, Plugin)
        name = made.manifest.name
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = PluginRecord(made, next(self.bus.arrival))
            record.move(State.RESOLVED)
        elif record.loaded or record.state not in (State.FAILED, State.UNLOADED):
            whose = f"It came from {record.source or 'an object'}: rename one, or reload it."
            raise ConflictError(
                f"a plugin {name!r} is {record.state} already",
                plugin=name,
                path=made.source,
                remedy="It is a core plugin: take another name." if record.core else whose,
            )
        record.plugin, record.error, record.failed_step = made, None, None
        record.move(State.LOADING)  # here and now: a second load of this name is refused
        try:
            self._leave()
            await self._operations.load(record, made, config, retried)
        except Exception as error:  # a cancellation's frames may still run
            _forget_variables(error, set())
            raise
        finally:
            if record.state is State.LOADING:  # it was cancelled before it began
                record.fail("load", StateError("cancelled", plugin=name))
        return record

    async def unload(self, name: str, *, cascade: bool = False, force: bool = False) -> None:
        """Unload a plugin: its registrations go, its calls end, its tasks and resources close.

        Args:
            name: The plugin's name.
            cascade: Unload the plugins that need it first, instead of refusing.
            force: Ask neither hooks nor dependents; for shutting down.

        Raises:
            NotFoundError: It is not loaded.
            DependencyError: Active plugins need it.
            RefusedError: A hook refused it.
        """
        record = self._loaded(name)
        if force:
            await self._run(self._operations.unload, record, None, self._leave())
        else:
            await self._take_away(record, cascade, "unload", self._operations.unload)

    async def toggle(self, name: str, active: bool | None = None, *, cascade: bool = False) -> bool:
        """Switch a plugin off or on.

        Off: its registrations leave but stay known, its tasks stop, `deactivate()` runs. On:
        `activate()` runs, all come back in their old order.

        Args:
            name: The plugin's name.
            active: On or off; `None` for the other way.
            cascade: Switch the plugins that need it off first, instead of refusing.

        Returns:
            Whether it is on now.

        Raises:
            NotFoundError: It is not loaded.
            DependencyError: Active plugins need it, or what it needs is not active.
            RefusedError: A hook refused it.
        """
        record = self._loaded(name)
        wanted = not record.active if active is None else active
        if wanted == record.active:
            return wanted
        if wanted:
            await self._run(self._operations.switch_on, record)
        else:
            await self._take_away(record, cascade, "switch off", self._operations.switch_off)
        return wanted

    async def reload(
        self,
        plugin: Plugin | type[Plugin] | Mapping[str, Any],
        config: Any = None,
        *,
        dependents: Dependents | None = None,
        drained: bool = True,
    ) -> PluginRecord:
        """Replace the generations of a plugin, and of those that need it, in one swap.

        The old ones serve until the swap, and stay if any step of any new one fails. It returns
        when they have retired: their calls have ended, or were cut after `drain_timeout`.
        `plugin:loaded` tells of the swap, `plugin:retired` of the end of each; a second reload
        need not wait for that. Plugins that are switched off are not switched on.

        Args:
            plugin: The new version, of the same name.
            config: Merged over the configuration that it has.
            dependents: Gives the new version of a plugin that needs it, called with the record of
                each, those that need others after these, before anything else happens. What it
                raises refuses the reload. Without it they get another generation of what they are.
            drained: Whether to return when they have retired; otherwise right after the swap.

        Raises:
            NotFoundError: It is not loaded.
            DependencyError: A service that is used while its users run is no longer provided.
            VekoError: As `load`, of any of them; the old generations never stopped. Those that
                had to (`reload = "restart"`) are up again as they were, or `failed`.
            StateError: The kernel is closing, or began to meanwhile.
        """
        self.check_not_closing()
        made = as_plugin(plugin) if getattr(plugin, "manifest", None) is None else plugin
        assert isinstance(made, Plugin)
        record = self._loaded(made.manifest.name)
        spare = self._leave()
        args = (self._operations, record, made, config, dependents, spare)
        retirement = await self._run(reload, *args, cancel=True)
        if drained:
            await retirement.done.wait()
        return record

    async def update_config(self, name: str, changes: Mapping[str, Any]) -> Any:
        """Merge changes into a plugin's configuration, and fire `config:change`.

        Returns:
            The new configuration.

        Raises:
            NotFoundError: The plugin is not loaded.
            ConfigError: It was refused; the old one stays.
        """
        record = self._loaded(name)
        async with self._operations.alone("configure", record):
            generation = record.current
            if generation is None:
                raise StateError("it was unloaded meanwhile", plugin=name)
            given = merge(generation.given, as_config(changes, name))
            config = await validated(self.bus, generation, given)
            generation.given, generation.config = given, config
        await self.bus.emit("config:change", config, record)
        return config

    # -- parts of the above

    def _loaded(self, name: str) -> PluginRecord:
        record = self._records.get(name)
        if record is None or not record.loaded:
            known = [r.name for r in self._records.values() if r.loaded]
            raise NotFoundError(
                f"no plugin {name!r} is loaded",
                plugin=name,
                remedy=f"Loaded: {', '.join(sorted(known)) or 'none'}.",
            )
        if Operation.is_on(record):
            raise StateError(
                "an operation on it is under way here, and this would wait for its end",
                plugin=name,
                remedy="Do it from a hook on what is told afterwards (`plugin:loaded`, …), or from "
                "a task (context.spawn).",
            )
        return record

    async def _run(self, operation: Callable[..., Any], *args: Any, cancel: bool = False) -> Any:
        """Run an operation in the root. What it raises keeps its lines, not its variables.

        An error is kept (by the record, by whoever caught it), and through its frames it would
        keep the generation that failed.
        """
        self.check_open()
        try:
            return await self.root.run(operation, *args, cancel=cancel)
        except Exception as error:  # a cancellation's frames may still run
            _forget_variables(error, set())
            raise

    def _leave(self) -> frozenset[int]:
        """Let the caller's own request and emissions not wait for themselves."""
        pin = Pin.held_here(self.bus)
        while pin is not None:
            pin.release()
            pin = Pin.held_here(self.bus)
        return emissions_of_caller()

    async def _take_away(
        self, record: PluginRecord, cascade: bool, verb: str, act: Callable[..., Any]
    ) -> None:
        if not cascade:
            self.refuse_if_needed(record, verb, [record])
        leaving = [*self.from_the_top(record, [record]), record]
        for one in leaving:
            if one.active or one is record:
                await self._run(act, one, leaving, self._leave())

    def _context(self, generation: Generation) -> Context:
        return Context(generation, self)

    def _moved(self, draft: Draft) -> None:
        self.services.changed()
        gone = [entry.key for entry in draft.removed if entry.kind == "attach"]
        for record in self._records.values() if gone else ():
            if record.current is not None:
                record.current.context._forget(gone)
        for post in draft.posts:
            self._posts.add(*post)
        self._transactions.moved(draft)


def _forget_variables(error: BaseException | None, seen: set[int]) -> None:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    traceback.clear_frames(error.__traceback__)
    _forget_variables(error.__cause__, seen)
    _forget_variables(error.__context__, seen)
    for inner in getattr(error, "exceptions", ()):
        _forget_variables(inner, seen)

"""The kernel: the bus, and the life cycle of plugins over it.

Operations on one plugin run one after the other, those on different plugins side by side.
Whatever a plugin registers goes live in one swap when it was accepted, or not at all.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

import anyio

from .._bus.arguments import check_flag, check_text
from .._bus.draft import Draft, Kind
from .._bus.frames import detach
from .._bus.limits import end_of_this_task
from .._bus.pins import Pin
from .._bus.registry import Entry
from .._bus.threads import check_thread, this_thread
from ..errors import ConflictError, NotFoundError, StateError
from . import context as _context
from . import events as _catalogue
from .config import configuring, update
from .context import Context
from .generation import Generation, PluginRecord
from .leaving import unload_all
from .locks import Operation
from .operations import Operations
from .plugin import Plugin, made_of
from .reload import Dependents, reload
from .root import Root, hold_root
from .runtime import Runtime
from .services import Services
from .states import State
from .steps import Steps
from .transactions import Transactions

__all__ = ["Kernel"]

_log: Final = logging.getLogger("veko")
_T = TypeVar("_T")


class Kernel(Runtime):
    """An event bus and the plugins on it: `async with Kernel() as kernel`.

    It may be entered again after it was left; what the host subscribed on the bus is still there.

    Args:
        app: The object that the plugins extend; they get it as `app`.
        timeout: Seconds that each life-cycle function of a plugin may take.
        drain_timeout: Seconds to wait for calls into a plugin that is unloaded or replaced.
        hook_timeout: Seconds that a plugin's async hook may take by default; `None` for no limit.
        enable_hooks: Whether hooks of plugins are dispatched; those of core plugins always are.

    Attributes:
        bus: The event bus.
        closing_by: When leaving it is to be done, by `time.monotonic()`. Each step that unloads a
            plugin may then take half of what is left at most; `None` for the limits above alone.
        absent: Attributes of contexts, and services, that the host leaves out, with what a plugin
            that asks for one is to read.
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
        self._transactions = Transactions(self, self.services)
        steps = Steps(self, self._transactions, functools.partial(Context, kernel=self))
        self._operations = Operations(self, self._transactions, steps)
        self._closing: anyio.Event
        self._stack: AsyncExitStack

    # -- the kernel's own life

    async def __aenter__(self) -> Self:
        if hasattr(self, "root") and not self.root.closed:
            raise StateError(
                "the kernel is open already", remedy="Leave it first, or make another."
            )
        self._forget_all()
        self._spare: frozenset[int] = frozenset()
        self._closing, self._stack = anyio.Event(), AsyncExitStack()
        group = await self._stack.enter_async_context(anyio.create_task_group())
        await group.start(hold_root, self._closing, self._began, end_of_this_task())
        return self

    def _began(self, root: Root) -> None:
        self.root, self.bus.thread = root, this_thread()
        self._posts.open()
        root.start(self._posts.run)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.root.begin_to_close()
        self._spare |= detach(self.bus)
        try:
            await self.root.finish(unload_all, self, functools.partial(self.unload, force=True))
        finally:
            await self._leave(kind, error, trace)

    async def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.root.close()
        self._closing.set()
        self.bus.thread = None
        await self._stack.__aexit__(kind, error, trace)

    def detach(self) -> None:
        """Let the kernel close without waiting for the calls and pins that the caller runs in.

        For code that waits for the kernel's end and may be called by a plugin.

        Raises:
            StateError: An operation on a plugin runs here, and would wait for itself.
        """
        if Operation.any():
            raise StateError(
                "this is called from within an operation on a plugin, and would wait for itself",
                remedy="Do it in a hook on an event that is emitted afterwards (`plugin:loaded`, "
                "…), or in a task (context.spawn).",
            )
        self._spare = getattr(self, "_spare", frozenset()) | detach(self.bus)

    @overload
    def use(self, service: str) -> Any: ...
    @overload
    def use(self, service: type[_T]) -> _T: ...
    def use(self, service: str | type[Any]) -> Any:
        """Return a service.

        Args:
            service: The service's name, or the type of the only service that is an instance of it.

        Raises:
            ServiceError: It is not provided, or several are of that type; the message says why.
        """
        return self.services.use(service)

    @overload
    async def when(self, service: str) -> Any: ...
    @overload
    async def when(self, service: type[_T]) -> _T: ...
    async def when(self, service: str | type[Any]) -> Any:
        """Wait until a service is provided, and return it.

        Raises:
            ServiceError: Several services are of that type.
        """
        return await self.services.when(service)

    # -- the life of plugins

    async def load(
        self,
        plugin: Plugin | type[Plugin] | Mapping[str, Any],
        config: Any = None,
        *,
        again: Callable[[BaseException], bool] | None = None,
    ) -> PluginRecord:
        """Load a plugin: `load()`, acceptance, `activate()`, and everything goes live at once.

        Args:
            plugin: A subclass of `Plugin` or an instance, a mapping, or a module.
            config: Its configuration, merged over its `default_config`.
            again: Returns whether the caller loads it again after this error. Such a failure is a
                warning in the log, and fires no `error:critical`.

        Returns:
            The plugin's record.

        Raises:
            ManifestError: It is not a valid plugin.
            ConflictError: A plugin of that name is loaded, or something that it registers is
                taken.
            DependencyError: A plugin that it needs is not active.
            ConfigError: Its configuration was refused.
            LoadError: `load()` or `activate()` raised, or did not end in time (`LoadTimeout`).
            RefusedError: A hook refused it.
            StateError: The kernel is closing.
        """
        self.check_not_closing()
        made = made_of(plugin)
        name = made.manifest.name
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = PluginRecord(made, next(self.bus.arrival))
            record.move(State.RESOLVED)
        elif record.loaded or record.state not in (State.FAILED, State.UNLOADED):
            remedy = f"It came from {record.source or 'an object'}: rename one, or reload it."
            if record.core:
                remedy = "That one is a core plugin: give yours another `name`."
            raise ConflictError(
                f"a plugin named {name!r} is already {record.state}",
                plugin=name,
                path=made.source,
                remedy=remedy,
            )
        record.plugin, record.error, record.failed_step = made, None, None
        record.move(State.LOADING)  # before the first await: a second load of it is refused
        try:
            Pin.release_all(self.bus)
            # In the caller's task: cancelling the caller cancels a load, since nothing of it is
            # live yet (test_a_cancelled_caller_takes_its_load_with_it).
            await self._operations.load(record, made, config, again)
        finally:
            if record.state is State.LOADING:  # it was cancelled before it began
                record.fail("load", StateError("cancelled", plugin=name))
        return record

    async def unload(self, name: str, *, cascade: bool = False, force: bool = False) -> None:
        """Unload a plugin: its registrations go, its calls end, its tasks and resources close.

        Args:
            name: The plugin's name.
            cascade: First unload the plugins that need it, instead of refusing.
            force: Unload it whatever hooks and dependents say; for shutting down.

        Raises:
            NotFoundError: It is not loaded.
            DependencyError: Active plugins need it.
            RefusedError: A hook refused it.
        """
        record = self._loaded(name)
        if force:
            spare = detach(self.bus) | self._spare
            await self.root.run(self._operations.unload, record, None, spare)
        else:
            await self._take_down(record, cascade, "unload", self._operations.unload)

    async def toggle(
        self, name: str, active: bool | None = None, *, cascade: bool = False, users: bool = False
    ) -> bool:
        """Switch a plugin off or on.

        Off: its registrations leave the registry but stay known, its tasks stop, `deactivate()`
        runs. On: `activate()` runs, the registrations come back in their old order.

        Args:
            name: The plugin's name.
            active: On or off; `None` switches to the other state.
            cascade: First switch off the plugins that need it, instead of refusing.
            users: Only plugins that use a service of it need it; those that merely declare it in
                `dependencies` stay on. For a breaker, which takes down as little as possible.

        Returns:
            Whether it is on now.

        Raises:
            NotFoundError: It is not loaded.
            DependencyError: Active plugins need it, or what it needs is not active.
            RefusedError: A hook refused it.
        """
        check_flag("active", active)
        record = self._loaded(name)
        while active is None or record.active != active:
            wanted = not record.active
            if wanted:
                done = await self.root.run(self._operations.switch_on, record)
            else:
                operation = functools.partial(self._operations.switch_off, users=users)
                done = await self._take_down(record, cascade, "switch off", operation, users=users)
            if done:
                return wanted
            # While this waited for the lock, another one switched or unloaded it: what is left to
            # do depends on what that left (test_two_toggles_at_once_switch_it_off_and_on).
            record = record if active is False else self._loaded(name)
        return active

    async def reload(
        self,
        plugin: Plugin | type[Plugin] | Mapping[str, Any],
        config: Any = None,
        *,
        dependents: Dependents | None = None,
        drained: bool = True,
    ) -> PluginRecord:
        """Replace the generations of a plugin, and of those that need it, in one swap.

        The old generations serve until the swap, and keep running if any step of a new one fails.
        It returns when they have retired: their calls have ended, or were cut after
        `drain_timeout`. `plugin:loaded` is emitted after the swap, `plugin:retired` at the end of
        each; a second reload does not wait for that. Plugins that are off stay off.

        Args:
            plugin: The new version, of the same name.
            config: Merged over the configuration that it has.
            dependents: Returns the new version of a plugin that needs this one, in any form that
                `load` takes; `def` or `async def`. It is called with the record of each, a plugin
                after those that it needs, before anything else happens; what it raises refuses
                the reload. Without it, they get another generation of their present version. If
                others come to need the plugin before the swap, the reload begins again with them.
            drained: Whether to wait until the old generations have retired; otherwise it returns
                right after the swap.

        Raises:
            NotFoundError: It is not loaded.
            DependencyError: A service that is used while its users run is no longer provided.
            VekoError: As `load`, for any of them; the old generations never stopped. Those that
                had to (`reload = "restart"`) run again as they were, or are `failed`.
            StateError: The kernel is closing, or began to meanwhile.
        """
        self.check_not_closing()
        made = made_of(plugin)
        record = self._loaded(made.manifest.name)
        spare = detach(self.bus)
        args = (self._operations, record, made, config, dependents, spare)
        retirement = await self.root.run(reload, *args, cancel=True)
        if drained:
            await retirement.done.wait()
        return record

    async def update_config(
        self, name: str, changes: Mapping[str, Any], *, exactly: bool = False
    ) -> Any:
        """Merge changes into a configuration (or replace it `exactly`), and fire `config:change`.

        Returns:
            The new configuration.

        Raises:
            NotFoundError: The plugin is not loaded.
            ConfigError: It was refused; the old one stays.
        """
        record = self._loaded(name)
        while (generation := record.current) is not None:
            async with configuring(generation):
                if record.current is generation:  # else it was replaced while this waited
                    config = await update(self.bus, generation, changes, exactly=exactly)
                    break
        else:
            raise StateError("it was unloaded meanwhile", plugin=name)
        await self.bus.emit("config:change", config, record)
        return config

    async def _update_own_config(self, generation: Generation, changes: Mapping[str, Any]) -> Any:
        """Merge changes into a generation's configuration, for code of that generation."""
        record = generation.record
        operation = Operation.on(record)
        afterwards = operation.afterwards if operation is not None else None
        if afterwards is None or generation.number < record.generation:
            return await self.update_config(record.name, changes)
        # Within load(), activate() and the like: the operation that called them has the plugin's
        # lock, and nobody is to hear of a configuration before it is live.
        async with configuring(generation):
            config = await update(self.bus, generation, changes)
        afterwards.configured(generation)
        return config

    # -- parts of the above

    def _loaded(self, name: str) -> PluginRecord:
        check_text("the name of a plugin", name)
        if this_thread() != self.bus.thread:
            check_thread(self.bus.thread)
        record = self._records.get(name)
        if record is None or record.current is None:
            known = [r.name for r in self._records.values() if r.loaded]
            raise NotFoundError(
                f"no plugin named {name!r} is loaded",
                plugin=name,
                remedy=f"Loaded: {', '.join(sorted(known)) or 'none'}.",
            )
        if Operation.on(record) is not None:
            raise StateError(
                "this is called from within an operation on the plugin, and would wait for itself",
                plugin=name,
                remedy="Do it in a hook on an event that is emitted afterwards (`plugin:loaded`, "
                "…), or in a task (context.spawn).",
            )
        return record

    async def _take_down(
        self,
        record: PluginRecord,
        cascade: bool,
        verb: str,
        operation: Callable[..., Any],
        *,
        users: bool = False,
    ) -> Any:
        """Unload or switch off a plugin, after those that need it; returns what that returned."""
        if not cascade:
            self.refuse_if_needed(record, verb, [record], users=users)
        done, leaving = None, [*self.from_the_top(record, [record], users=users), record]
        for index, one in enumerate(leaving):
            done = await self.root.run(operation, one, leaving[index:], detach(self.bus))
        return done

    def _moved(self, draft: Draft) -> None:
        gone = [entry.key for entry in draft.removed if entry.kind == "attach"]
        for record in self._records.values() if gone else ():
            if record.current is not None:
                record.current.context._forget(gone)
        self._posts.add_all(draft.posts)
        if self.services.awaited:
            self.services.changed()
        if not draft.accepted:
            self._transactions.accept_later(draft)

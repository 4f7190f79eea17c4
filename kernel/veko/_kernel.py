"""The kernel: the bus, and the life cycle of plugins over it.

Operations on one plugin are serialised, those on different plugins run side by side, all in
tasks of the kernel's root: a plugin may ask for its own unloading. Whatever a plugin registers
goes live in one swap when it was accepted, or not at all.
"""

from __future__ import annotations

import functools
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import anyio
from anyio.abc import TaskStatus

from ._bus import Bus, Pin, emissions_of_caller, hook_entry
from ._context import Context, LogRecord
from ._events import Event
from ._handle import STAGING, Handle, Subscription
from ._lifecycle import Generation, PluginRecord, State
from ._plugin import Plugin, as_plugin
from ._registry import Draft, Entry, Kind, Registry
from ._scope import Root, Task, call
from .errors import (
    ConflictError,
    DependencyError,
    LoadError,
    LoadTimeout,
    NotFoundError,
    RefusedError,
    ServiceError,
    StateError,
    TransactionError,
    VekoError,
)

__all__ = ["Kernel"]

_log: Final = logging.getLogger("veko")
ATTEMPTS: Final = 16
BACKLOG: Final = 10_000

_STEP = "Before the step; raising refuses it. The plugin's name and the plugin."
_DONE = "After the fact. The plugin's name and the plugin."
EVENTS: Final = (
    Event("plugin:load", payload=str, doc=f"A plugin is loaded. {_STEP}"),
    Event("plugin:unload", payload=str, doc=f"A plugin is unloaded. {_STEP}"),
    Event("plugin:activate", payload=str, doc=f"A plugin is switched on. {_STEP}"),
    Event("plugin:deactivate", payload=str, doc=f"A plugin is switched off. {_STEP}"),
    Event("plugin:reload", payload=str, doc=f"A plugin gets a new generation. {_STEP}"),
    Event("plugin:loaded", payload=str, doc=_DONE),
    Event("plugin:unloaded", payload=str, doc=_DONE),
    Event("plugin:activated", payload=str, doc=_DONE),
    Event("plugin:deactivated", payload=str, doc=_DONE),
    Event("context:create", payload=Context, doc="A plugin's context was made. The context."),
    Event(
        "config:validate",
        returns=True,
        doc="Before a configuration is taken; what is returned is. The configuration and the "
        "plugin.",
    ),
    Event("config:change", doc="A configuration has changed. The configuration and the plugin."),
    Event("log", payload=LogRecord, doc="A plugin logged something. The `LogRecord`."),
    Event(
        "error:critical",
        payload=BaseException,
        doc="An error that stops a plugin or the system. The error and the plugin's name.",
    ),
)


class Kernel:
    """An event bus and the plugins on it: `async with Kernel() as kernel`.

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
        self.app = app
        self.timeout = timeout
        self.drain_timeout = drain_timeout
        self.hook_timeout = hook_timeout
        self.enable_hooks = enable_hooks
        self.bus = Bus()
        self.bus.change(add=[Entry("kind", n, Kind(n, unique=True)) for n in ("service", "attach")])
        for event in EVENTS:
            self.bus.declare(event)
        self.bus.moved = self._moved
        self.root: Root
        self._records: dict[str, PluginRecord] = {}
        self._posts: deque[tuple[Any, ...]] = deque()
        self._posted = anyio.Event()
        self._dropped = 0
        self._change = anyio.Event()
        self._closing = anyio.Event()
        self._stack = AsyncExitStack()

    # -- the kernel's own life

    async def __aenter__(self) -> Self:
        group = await self._stack.enter_async_context(anyio.create_task_group())
        await group.start(self._hold_root)
        return self

    async def _hold_root(self, *, task_status: TaskStatus[None]) -> None:
        """Hold the root: a cancelled host does not reach into it, so plugins unload in order."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                self.root = Root(group)
                self.root.start(self._pump)
                task_status.started()
                await self._closing.wait()
                group.cancel_scope.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            for record in reversed(self.records()):
                if record.loaded:
                    try:
                        await self.unload(record.name, force=True)
                    except Exception as failure:
                        _log.exception("unloading %s failed", record.name, exc_info=failure)
            await self._flush()
        self.root.closed = True
        self._closing.set()
        await self._stack.__aexit__(kind, error, trace)

    def post(self, event: str, *args: Any) -> None:
        """Emit from where nothing can be awaited: soon, in order, in a task of the kernel.

        Past 10,000 that wait, the oldest are dropped, and the log says how many.
        """
        if not self.bus.heard(event):
            return
        if len(self._posts) >= BACKLOG:
            self._posts.popleft()
            self._dropped += 1
        self._posts.append((event, *args))
        self._posted.set()

    async def _pump(self) -> None:
        while True:
            await self._posted.wait()
            self._posted = anyio.Event()
            await self._flush()

    async def _flush(self) -> None:
        while self._posts:
            event, *args = self._posts.popleft()
            await self.bus.emit(event, *args)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                _log.warning("%d posted events were dropped: too many at once", dropped)

    # -- looking

    @property
    def registry(self) -> Registry:
        """What is live: in a pin, the registry that is pinned."""
        return self.bus.pinned()

    def pin(self) -> Pin:
        """Keep one registry for all that is awaited inside `with kernel.pin() as registry`."""
        return self.bus.pin()

    def get(self, name: str) -> PluginRecord | None:
        """Return what is known of a plugin: loaded, or why not; `None` if it is not here."""
        return self._records.get(name)

    def records(self) -> tuple[PluginRecord, ...]:
        """Return all known plugins, in order of arrival."""
        return tuple(sorted(self._records.values(), key=lambda record: record.rank))

    def find(self, kind: str, key: str, by: Generation | None = None) -> Entry | None:
        """Return an entry: what a plugin itself stages comes before what is live."""
        entry = by.staged(kind, key) if by is not None else None
        return entry or self.registry.get(kind, key)

    def use(self, name: str, *, by: Generation | None = None) -> Any:
        """Return a service.

        Args:
            name: The service's name.
            by: Who asks; it depends on the provider from then on.

        Raises:
            ServiceError: It is not there; the message says why.
        """
        entry = self.find("service", name, by)
        if entry is None:
            plugin = by.name if by is not None else None
            for record in self._records.values():
                for other in record.current.entries if record.current else ():
                    if (other.kind, other.key) == ("service", name):
                        raise ServiceError(
                            f"service {name!r} belongs to {record.name}, which is {record.state}",
                            plugin=plugin,
                            remedy=f"Switch {record.name} on.",
                        )
            known = sorted(str(key) for key in self.registry.keys("service"))
            raise ServiceError(
                f"there is no service {name!r}",
                plugin=plugin,
                remedy=f"There is: {', '.join(known) or 'none'}. Name the plugin that provides it "
                "in `dependencies`, or wait for it with `when`.",
            )
        if by is not None and entry.owner not in (None, by):
            by.uses.add(entry.owner.name)
        return entry.value

    async def when(self, name: str, *, by: Generation | None = None) -> Any:
        """Wait until a service is there, and return it."""
        while self.find("service", name, by) is None:
            await self._change.wait()
        return self.use(name, by=by)

    # -- the life of plugins

    async def load(
        self, plugin: Plugin | type[Plugin] | Mapping[str, Any], config: Any = None
    ) -> PluginRecord:
        """Load a plugin: `load()`, acceptance, `activate()`, and everything goes live at once.

        Args:
            plugin: A subclass of `Plugin` or an instance, a mapping, or a module.
            config: Its configuration, merged over its `default_config`.

        Returns:
            The plugin's record.

        Raises:
            ManifestError: It is not a sound plugin.
            ConflictError: A plugin of that name is loaded, or what it registers is taken.
            DependencyError: A plugin that it needs is not active.
            ConfigError: Its configuration was refused.
            LoadError: `load()` or `activate()` raised, or did not end in time (`LoadTimeout`).
            RefusedError: A hook refused it.
        """
        made = as_plugin(plugin) if getattr(plugin, "manifest", None) is None else plugin
        assert isinstance(made, Plugin)
        name = made.manifest.name
        record = self._records.get(name)
        if record is not None and (record.loaded or record.state is State.LOADING):
            raise ConflictError(
                f"a plugin {name!r} is {record.state} already",
                plugin=name,
                path=made.source,
                remedy=f"It came from {record.source or 'an object'}: rename one, or reload it.",
            )
        if record is None:
            record = self._records[name] = PluginRecord(made, next(self.bus.arrival))
        await self._run(self._load, record, made, config, cancel=True)
        return record

    async def _load(self, record: PluginRecord, plugin: Plugin, given: Any) -> PluginRecord:
        async with record.lock:
            begin = time.perf_counter()
            if record.state is State.DISCOVERED:
                record.move(State.RESOLVED)
            record.plugin, record.error, record.failed_step = plugin, None, None
            record.move(State.LOADING)
            generation: Generation | None = None
            try:
                self._require(record)
                await self._ask("plugin:load", record)
                generation = await self._make(record, plugin, given)
                await self._ask("plugin:activate", record)
                await self._call(generation, "activate")
                await self._commit(generation, add=generation.entries)
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await self._undo(record, generation, error)
                raise
            record.current = generation
            record.move(State.ACTIVE)
            self._go_live(generation, begin)
            await self.bus.emit("plugin:loaded", record.name, record)
            await self.bus.emit("plugin:activated", record.name, record)
            return record

    async def _make(self, record: PluginRecord, plugin: Plugin, given: Any) -> Generation:
        """Make a generation and run its `load()`; if that fails, nothing of it is left."""
        record.generations += 1
        generation = Generation(self, record, plugin, record.generations)
        try:
            generation.given = dict(given or {})
            merged = merge(plugin.manifest.default_config, generation.given)
            generation.config = await self.bus.emit(
                "config:validate", merged, generation, strict=True
            )
            generation.context = Context(generation)
            await self.bus.emit("context:create", generation.context)
            await self._call(generation, "load")
            generation.loaded = True
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self._discard(generation, error)
            raise
        return generation

    async def _call(self, generation: Generation, step: str) -> None:
        """Call a life-cycle function; what it registers meanwhile waits for the swap."""
        plugin = generation.plugin
        if plugin.step(step) is None:
            return
        token = STAGING.set(generation)
        run = functools.partial(plugin.call, step, self.app, generation.config, generation.context)
        try:
            await call(run, self.timeout, step, generation.name)
        except VekoError as error:
            if isinstance(error, LoadTimeout):
                await self.bus.emit("plugin:timeout", generation.name, error)
            raise
        except BaseException as error:
            if self.bus.passes(error):
                raise
            raise LoadError(
                f"{step}() raised {type(error).__name__}: {error}",
                step=step,
                plugin=generation.name,
                path=generation.plugin.source,
                line=_line(error, generation.plugin.source),
                remedy="Nothing that it registered is left; mend it and load it again.",
            ) from error
        finally:
            STAGING.reset(token)

    def _go_live(self, generation: Generation, begin: float | None = None) -> None:
        if begin is not None:
            generation.record.loaded_at = datetime.now(UTC)
            generation.record.load_duration = time.perf_counter() - begin
        generation.open, generation.live = False, True
        generation.scope.start_tasks()
        generation.settle()

    async def _discard(self, generation: Generation, error: BaseException) -> None:
        """Close a generation that never went live."""
        generation.open, generation.closed = False, True
        generation.settle(error if isinstance(error, Exception) else StateError("cancelled"))
        for fault in await generation.scope.close(self.timeout):
            _log.error("closing %s failed", generation.name, exc_info=fault)

    async def _undo(
        self, record: PluginRecord, generation: Generation | None, error: BaseException
    ) -> None:
        """Take back a load that failed, and say so."""
        if generation is not None and not generation.closed:
            if generation.loaded:
                await self._quietly(generation, "unload")
            await self._discard(generation, error)
        step = getattr(error, "step", "load")
        record.fail(step, error)
        if not self.bus.passes(error):
            await self.bus.report(error, owner=record, handler=f"{record.name}.{step}")
            await self.bus.emit("error:critical", error, record.name)

    async def _quietly(self, generation: Generation, step: str) -> None:
        """Call a life-cycle function whose failure stops nobody; it is reported."""
        try:
            await self._call(generation, step)
        except Exception as error:
            await self.bus.report(error, owner=generation, handler=f"{generation.name}.{step}")

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
        if not force:
            unload = functools.partial(self.unload, cascade=True)
            await self._with_dependents(record, cascade, "unload", unload)
        await self._run(self._unload, record, force, self._leave())

    async def _unload(self, record: PluginRecord, force: bool, spare: frozenset[int]) -> None:
        async with record.lock:
            generation = record.current
            if generation is None:
                return
            if not force:
                await self._ask("plugin:unload", record)
                if record.active:
                    await self._ask("plugin:deactivate", record)
            was_active = record.active
            record.move(State.UNLOADING)
            await self._take_down(generation, spare, deactivate=was_active)
            record.current = None
            record.move(State.UNLOADED)
            self._records.pop(record.name)  # it would keep the plugin's module
            if was_active:
                await self.bus.emit("plugin:deactivated", record.name, record)
            await self.bus.emit("plugin:unloaded", record.name, record)

    async def _take_down(
        self, generation: Generation, spare: frozenset[int], *, deactivate: bool = True
    ) -> None:
        """Take a generation out of the registry and end it."""
        before = await self._commit(generation, remove=generation.entries)
        generation.live = False
        await self._retire(generation, before, spare, deactivate=deactivate)

    async def _retire(
        self,
        generation: Generation,
        before: Registry,
        spare: frozenset[int],
        *,
        deactivate: bool,
    ) -> None:
        """End a generation that has left the registry. What fails is reported, it ends anyway."""
        await self._drain(generation, before, spare)
        for line in await generation.scope.stop_tasks(self.timeout):
            await self.failed(generation, line, LoadTimeout(line, step="close"))
        if deactivate:
            await self._quietly(generation, "deactivate")
        await self._quietly(generation, "unload")
        generation.closed = True
        generation.settle(StateError("the plugin was unloaded", plugin=generation.name))
        for fault in await generation.scope.close(self.timeout):
            await self.bus.report(fault, owner=generation, handler=f"{generation.name}.close")
        generation.entries.clear()
        generation.handles.clear()

    async def _drain(self, generation: Generation, before: Registry, spare: frozenset[int]) -> None:
        with anyio.move_on_after(self.drain_timeout) as scope:
            await self.bus.drained(before, generation, spare)
        if scope.cancelled_caught:
            _log.warning(
                "calls into %s still run after %g s; it is taken down without them",
                generation.name,
                self.drain_timeout,
            )

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
            await self._run(self._switch_on, record)
        else:
            off = functools.partial(self.toggle, active=False, cascade=True)
            await self._with_dependents(record, cascade, "switch off", off)
            await self._run(self._switch_off, record, self._leave())
        return wanted

    async def _switch_off(self, record: PluginRecord, spare: frozenset[int]) -> None:
        async with record.lock:
            generation = record.current
            if generation is None or not record.active:
                return
            await self._ask("plugin:deactivate", record)
            before = await self._commit(generation, remove=generation.entries)
            generation.live = False
            record.move(State.INACTIVE)
            await self._drain(generation, before, spare)
            for line in await generation.scope.stop_tasks(self.timeout):
                await self.failed(generation, line, LoadTimeout(line, step="deactivate"))
            await self._quietly(generation, "deactivate")
            await self.bus.emit("plugin:deactivated", record.name, record)

    async def _switch_on(self, record: PluginRecord) -> None:
        async with record.lock:
            generation = record.current
            if generation is None or record.active:
                return
            self._require(record)
            await self._ask("plugin:activate", record)
            await self._call(generation, "activate")
            try:
                await self._commit(generation, add=generation.entries)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._quietly(generation, "deactivate")
                raise
            record.move(State.ACTIVE)
            self._go_live(generation)
            await self.bus.emit("plugin:activated", record.name, record)

    async def reload(
        self, plugin: Plugin | type[Plugin] | Mapping[str, Any], config: Any = None
    ) -> PluginRecord:
        """Replace a plugin's generation by a new one in one swap.

        The old one serves until the swap, and stays if any step of the new one fails.

        Args:
            plugin: The new version, of the same name.
            config: Merged over the configuration that it has.

        Raises:
            NotFoundError: It is not loaded.
            VekoError: As `load`; the old generation never stopped.
        """
        made = as_plugin(plugin) if getattr(plugin, "manifest", None) is None else plugin
        assert isinstance(made, Plugin)
        record = self._loaded(made.manifest.name)
        await self._run(self._reload, record, made, config, self._leave(), cancel=True)
        return record

    async def _reload(
        self, record: PluginRecord, plugin: Plugin, given: Any, spare: frozenset[int]
    ) -> PluginRecord:
        async with record.lock:
            old = record.current
            if old is None:
                raise StateError(f"it is {record.state}", plugin=record.name, remedy="Load it.")
            begin = time.perf_counter()
            new: Generation | None = None
            try:
                await self._ask("plugin:reload", record)
                new = await self._make(record, plugin, merge(old.given, dict(given or {})))
                if record.active:
                    await self._call(new, "activate")
                    hand_over = functools.partial(_hand_over, old, new)
                    before = await self._commit(
                        new, add=new.entries, remove=old.entries, swapping=hand_over
                    )
                else:
                    _hand_over(old, new)
                    before = self.bus.registry
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    if new is not None:
                        await self._quietly(new, "unload")
                        await self._discard(new, error)
                    if not self.bus.passes(error):
                        await self.bus.report(error, owner=record, handler=f"{record.name}.reload")
                raise
            record.current, record.plugin = new, plugin
            old.live = False
            new.open = False
            if record.active:
                self._go_live(new, begin)
            with anyio.CancelScope(shield=True):
                await self._retire(old, before, spare, deactivate=record.active)
            await self.bus.emit("plugin:loaded", record.name, record)
            return record

    async def update_config(self, name: str, changes: Mapping[str, Any]) -> Any:
        """Merge changes into a plugin's configuration, and fire `config:change`.

        Returns:
            The new configuration.

        Raises:
            NotFoundError: The plugin is not loaded.
            ConfigError: It was refused; the old one stays.
        """
        generation = self._loaded(name).current
        assert generation is not None
        given = merge(generation.given, changes)
        merged = merge(generation.manifest.default_config, given)
        config = await self.bus.emit("config:validate", merged, generation, strict=True)
        generation.given, generation.config = given, config
        await self.bus.emit("config:change", config, generation.record)
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
        staging = STAGING.get()
        if isinstance(staging, Generation) and staging.record is record:
            raise StateError(
                "a plugin cannot do this to itself inside its own life-cycle function",
                plugin=name,
                remedy="Do it from a hook or a task (context.spawn).",
            )
        return record

    async def _run(self, operation: Callable[..., Any], *args: Any, cancel: bool = False) -> Any:
        """Run an operation in the root. What it raises keeps its lines, not its variables.

        An error is kept (by the record, by whoever caught it), and through its frames it would
        keep the generation that failed.
        """
        try:
            return await self.root.run(operation, *args, cancel=cancel)
        except BaseException as error:
            _forget_variables(error, set())
            raise

    def _leave(self) -> frozenset[int]:
        """Let the caller's own request and emissions not wait for themselves."""
        pin = Pin.held_here(self.bus)
        while pin is not None:
            pin.release()
            pin = Pin.held_here(self.bus)
        return emissions_of_caller()

    def _require(self, record: PluginRecord) -> None:
        for name in record.needs():
            needed = self._records.get(name)
            if needed is None or not needed.active:
                raise DependencyError(
                    f"it needs the plugin {name!r}, which is "
                    f"{needed.state if needed else 'not there'}",
                    plugin=record.name,
                    path=record.source,
                    remedy=f"Load {name} first, or take it out of `dependencies`.",
                )

    def dependents(self, name: str) -> list[PluginRecord]:
        """Return the active plugins that need this one, the last to arrive first."""
        return [r for r in reversed(self.records()) if r.active and name in r.needs()]

    async def _with_dependents(
        self, record: PluginRecord, cascade: bool, verb: str, act: Callable[[str], Any]
    ) -> None:
        dependents = self.dependents(record.name)
        if dependents and not cascade:
            names = ", ".join(sorted(r.name for r in dependents))
            raise DependencyError(
                f"cannot {verb} it: {names} need it",
                plugin=record.name,
                remedy=f"Do it to {names} first, or give cascade=True.",
            )
        for dependent in dependents:
            if dependent.active:
                await act(dependent.name)

    async def _ask(self, event: str, record: PluginRecord) -> None:
        try:
            await self.bus.emit(event, record.name, record, strict=True)
        except Exception as error:
            raise RefusedError(
                f"a hook refused it: {type(error).__name__}: {error}",
                plugin=record.name,
                event=event,
                remedy="What the hook raised is the cause.",
            ) from error

    async def _commit(
        self,
        generation: Generation | None,
        *,
        add: Iterable[Entry] = (),
        remove: Iterable[Entry] = (),
        swapping: Callable[[], None] | None = None,
    ) -> Registry:
        """Make, accept and publish the next registry; returns the one before.

        If the registry moved while it was being accepted, it is made and accepted anew.
        """
        for _ in range(ATTEMPTS):
            draft = Draft(self.bus.registry, self.bus)
            for entry in tuple(remove):
                draft.remove(entry)
            for entry in tuple(add):
                draft.add(entry)
            token = STAGING.set(generation)
            try:
                await draft.accept()
            finally:
                STAGING.reset(token)
            if draft.before is self.bus.registry:
                if swapping is not None:
                    swapping()
                self.bus.publish(draft)
                return draft.before
        raise TransactionError(
            "the registry kept moving while this was being accepted",
            plugin=generation.name if generation else None,
            remedy="Something subscribes or unsubscribes at every moment; find it.",
        )

    def _moved(self, draft: Draft) -> None:
        change, self._change = self._change, anyio.Event()
        change.set()

    def stage_hook(
        self,
        generation: Generation,
        event: str,
        fn: Callable[..., Any],
        priority: float,
        timeout: float | None,
    ) -> Subscription:
        """Subscribe a plugin's handler."""
        subscription = Subscription(event, fn, priority=priority, owner=generation, timeout=timeout)
        kind = hook_entry(subscription, (0, 0)).kind
        if self.enable_hooks or generation.plugin.core:
            generation.stage(kind, event, subscription, priority)
        return subscription

    def add_one(self, generation: Generation, entry: Entry, handle: Handle) -> None:
        """Add one entry of a plugin that is live: at once if nobody has to be asked."""
        draft = Draft(self.bus.registry, self.bus)
        try:
            draft.add(entry)
        except ConflictError as error:
            self._refuse(generation, entry, handle, error)
            return
        generation.entries.append(entry)
        if not draft.needs_accepting:
            self.bus.publish(draft)
            handle.settle()
            return
        handle._transaction = generation
        self.root.start(self._add_later, generation, entry, handle)

    async def _add_later(self, generation: Generation, entry: Entry, handle: Handle) -> None:
        try:
            if entry in generation.entries:
                await self._commit(generation, add=[entry])
        except Exception as error:
            generation.entries.remove(entry)
            self._refuse(generation, entry, handle, error)
        else:
            handle.settle()

    def _refuse(
        self, generation: Generation, entry: Entry, handle: Handle, error: Exception
    ) -> None:
        generation.handles.pop(entry, None)
        handle.settle(error)
        self.root.start(
            functools.partial(
                self.bus.report, error, owner=generation, handler=f"{entry.kind} {entry.key}"
            )
        )

    def remove_one(self, entry: Entry) -> None:
        """Take one entry away: at once if nobody has to be asked."""
        draft = Draft(self.bus.registry, self.bus)
        draft.remove(entry)
        if draft.needs_accepting:
            self.root.start(functools.partial(self._commit, None, remove=[entry]))
        else:
            self.bus.publish(draft)

    def spawn(self, generation: Generation, run: Callable[[], Any], fn: Callable[..., Any]) -> Task:
        """Give a plugin a task; it starts when the plugin is live."""
        if generation.closed:
            raise TransactionError("the plugin was unloaded", plugin=generation.name)
        report = functools.partial(self.failed, generation, fn)
        task = Task(self.root, run, report, None if generation.live else generation)
        generation.scope.add(task)
        if generation.live and not generation.open:
            task.start()
        return task

    async def failed(self, generation: Generation, fn: object, error: BaseException) -> None:
        """Report a failure of a plugin's own task."""
        name = getattr(fn, "__qualname__", str(fn))
        await self.bus.report(error, owner=generation, handler=name)

    async def fault(
        self, error: BaseException, *, plugin: str | None = None, origin: Any = None
    ) -> None:
        """Report that a plugin's code failed outside a hook: in a route handler, say.

        Args:
            error: What it raised.
            plugin: The plugin's name.
            origin: What was being worked on.
        """
        record = self._records.get(plugin) if plugin is not None else None
        owner = record.current if record is not None and record.current else plugin
        await self.bus.report(error, owner=owner, subject=origin)


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two configurations deep; neither is changed nor shared."""
    merged: dict[str, Any] = {}
    for key in (*under, *(key for key in over if key not in under)):
        value = over.get(key, under.get(key))
        below = under.get(key)
        if isinstance(value, Mapping):
            value = merge(below if isinstance(below, Mapping) else {}, value)
        elif isinstance(value, list):
            value = list(value)
        merged[key] = value
    return merged


def _hand_over(old: Generation, new: Generation) -> None:
    export, take = old.plugin.step("export_state"), new.plugin.step("import_state")
    if export is not None and take is not None:
        take(export(), old.version)


def _line(error: BaseException, source: Any) -> int | None:
    """The last line of a plugin's own file in a traceback."""
    line, trace = None, error.__traceback__
    while trace is not None and source is not None:
        if trace.tb_frame.f_code.co_filename.startswith(str(source)):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _forget_variables(error: BaseException | None, seen: set[int]) -> None:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    traceback.clear_frames(error.__traceback__)
    _forget_variables(error.__cause__, seen)
    _forget_variables(error.__context__, seen)
    for inner in getattr(error, "exceptions", ()):
        _forget_variables(inner, seen)

"""The operations of the life cycle: load, unload, switch off and on, reload.

Each runs in a task of the kernel's root, one at a time on a plugin. A step that fails leaves what
was before: a load nothing, a reload the old generation, an unload that is refused the plugin.
"""

from __future__ import annotations

import functools
import logging
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from ._config import as_config, merge, validated
from ._context import Context
from ._events import Origin
from ._handle import STAGING
from ._lifecycle import OPERATION, Generation, Operation, PluginRecord, State
from ._limits import must_pass
from ._plugin import Plugin
from ._registry import Registry
from ._transactions import Transactions
from .errors import (
    DependencyError,
    LoadError,
    LoadTimeout,
    RefusedError,
    StateError,
    VekoError,
)

if TYPE_CHECKING:
    from ._kernel import Kernel

__all__ = ["Operations"]

_log: Final = logging.getLogger("veko")
RETRIED: Final = ("load", "activate")
"""Steps whose failure may pass; a bad manifest or a name that is taken does not."""


class Operations:
    """What a kernel does to its plugins."""

    def __init__(self, kernel: Kernel, transactions: Transactions) -> None:
        self.kernel = kernel
        self.bus = kernel.bus
        self.transactions = transactions

    async def load(self, record: PluginRecord, plugin: Plugin, given: Any, retried: bool) -> None:
        """Load a plugin; see `Kernel.load`."""
        async with self.alone(record) as told:
            begin = time.perf_counter()
            generation: Generation | None = None
            try:
                self._require(record)
                await self._ask("plugin:load", record)
                generation = await self._make(record, plugin, given)
                await self._ask("plugin:activate", record)
                await self._activate(generation)
                await self.transactions.commit(generation, add=generation.entries)
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await self._undo(record, generation, error)
                if not must_pass(error):
                    told.append(error)
                    if not (retried and isinstance(error, LoadError) and error.step in RETRIED):
                        told.append("error:critical")
                raise
            record.current = generation
            record.move(State.ACTIVE)
            self._go_live(generation, begin)
            told.extend(("plugin:loaded", "plugin:activated"))

    @asynccontextmanager
    async def alone(self, record: PluginRecord) -> AsyncIterator[list[str | BaseException]]:
        """Hold a plugin's lock; what is appended, events and errors, is told when it is free.

        Who hears of it may then act on the plugin.
        """
        told: list[str | BaseException] = []
        try:
            async with record.lock:
                operation = Operation(record)
                token = OPERATION.set(operation)
                try:
                    yield told
                finally:
                    operation.record = None  # a timer made meanwhile may keep this context
                    OPERATION.reset(token)
        finally:
            for one in told:
                if isinstance(one, BaseException):
                    await self.bus.report(one, owner=record, handler=f"{record.name}.{_step(one)}")
                elif one == "error:critical":
                    origin = Origin(record.name, handler=f"{record.name}.{record.failed_step}")
                    await self.bus.emit(one, record.error, origin)
                else:
                    await self.bus.emit(one, record.name, record)

    async def _make(self, record: PluginRecord, plugin: Plugin, given: Any) -> Generation:
        """Make a generation and run its `load()`; if that fails, nothing of it is left."""
        record.generations += 1
        generation = Generation(self.kernel, record, plugin, record.generations)
        try:
            generation.given = as_config(given, record.name)
            generation.config = await validated(self.bus, generation, generation.given)
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
        if plugin.life_cycle(step) is None:
            return
        token = STAGING.set(weakref.ref(generation))
        run = functools.partial(
            plugin.call_life_cycle, step, self.kernel.app, generation.config, generation.context
        )
        try:
            await self.kernel.root.call(run, self.kernel.timeout, step, generation.name)
        except VekoError as error:
            if isinstance(error, LoadTimeout):
                await self.bus.emit("plugin:timeout", generation.name, error)
            raise
        except BaseException as error:
            if must_pass(error):
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
        for fault in await generation.scope.close(self.kernel.timeout):
            _log.error("closing %s failed", generation.name, exc_info=fault)

    async def _undo(
        self, record: PluginRecord, generation: Generation | None, error: BaseException
    ) -> None:
        """Take back a load that failed."""
        if generation is not None and not generation.closed:
            await self._end(generation)
            await self._discard(generation, error)
        self._place(error, record)
        record.fail(_step(error), error)

    @staticmethod
    def _place(error: BaseException, record: PluginRecord) -> None:
        """Say in an error whose it is, if that does not stand there yet."""
        if isinstance(error, VekoError):
            error.plugin = error.plugin or record.name
            error.path = error.path or record.source

    async def _activate(self, generation: Generation) -> None:
        before = set(generation.held)
        try:
            await self._call(generation, "activate")
            generation.activated = True
        finally:
            generation.passing = [h for h in generation.held if h not in before]
            if not generation.activated:
                self._let_go(generation)

    async def _end(self, generation: Generation) -> None:
        """Run `deactivate()` and `unload()`, as far as their counterparts have run."""
        await self._deactivate(generation)
        if generation.loaded:
            generation.loaded = False
            await self._quietly(generation, "unload")

    async def _deactivate(self, generation: Generation) -> None:
        if generation.activated:
            generation.activated = False
            await self._quietly(generation, "deactivate")
            self._let_go(generation)

    @staticmethod
    def _let_go(generation: Generation) -> None:
        """Take away what `activate()` registered."""
        while generation.passing:
            generation.passing.pop().cancel()

    async def _quietly(self, generation: Generation, step: str) -> None:
        """Call a life-cycle function whose failure stops nobody; it is reported."""
        try:
            await self._call(generation, step)
        except Exception as error:
            await self.bus.report(error, owner=generation, handler=f"{generation.name}.{step}")

    async def unload(self, record: PluginRecord, force: bool, spare: frozenset[int]) -> None:
        """Unload a plugin; see `Kernel.unload`."""
        async with self.alone(record) as told:
            generation = record.current
            if generation is None:
                return
            if not force:
                await self._ask("plugin:unload", record)
                if record.active:
                    await self._ask("plugin:deactivate", record)
            was_active = record.active
            try:
                before = await self.transactions.commit(generation, remove=generation.entries)
            except Exception as error:
                if not force:
                    raise
                _log.error("%s leaves though it was refused", record.name, exc_info=error)
                before = self.bus.registry
                self.bus.change(remove=generation.entries)
            generation.live = False
            record.move(State.UNLOADING)
            await self._retire(generation, before, spare)
            record.current = None
            record.move(State.UNLOADED)
            self.kernel.forget(record)  # it would keep the plugin's module
            if was_active:
                told.append("plugin:deactivated")
            told.append("plugin:unloaded")

    async def _retire(
        self, generation: Generation, before: Registry, spare: frozenset[int]
    ) -> None:
        """End a generation that has left the registry. What fails is reported, it ends anyway."""
        await self._quiesce(generation, before, spare)
        await self._end(generation)
        generation.closed = True
        generation.settle(StateError("the plugin was unloaded", plugin=generation.name))
        for fault in await generation.scope.close(self.kernel.timeout):
            await self.bus.report(fault, owner=generation, handler=f"{generation.name}.close")
        generation.entries.clear()
        generation.handles.clear()

    async def _quiesce(
        self, generation: Generation, before: Registry, spare: frozenset[int]
    ) -> None:
        """Wait for the calls that still run in it, and stop its tasks."""
        with anyio.move_on_after(self.kernel.drain_timeout) as scope:
            await self.bus.drained(before, generation, spare)
        if scope.cancelled_caught:
            _log.warning(
                "calls into %s still run after %g s; it goes on without them",
                generation.name,
                self.kernel.drain_timeout,
            )
        for line in await generation.scope.stop_tasks(self.kernel.timeout):
            await self.kernel.failed(generation, line, LoadTimeout(line, step="close"))

    async def switch_off(self, record: PluginRecord, spare: frozenset[int]) -> None:
        """Switch a plugin off; see `Kernel.toggle`."""
        async with self.alone(record) as told:
            generation = record.current
            if generation is None or not record.active:
                return
            await self._ask("plugin:deactivate", record)
            before = await self.transactions.commit(generation, remove=generation.entries)
            generation.live = False
            record.move(State.INACTIVE)
            await self._quiesce(generation, before, spare)
            await self._deactivate(generation)
            told.append("plugin:deactivated")

    async def switch_on(self, record: PluginRecord) -> None:
        """Switch a plugin on; see `Kernel.toggle`."""
        async with self.alone(record) as told:
            generation = record.current
            if generation is None or record.active:
                return
            self._require(record)
            await self._ask("plugin:activate", record)
            try:
                await self._activate(generation)
                await self.transactions.commit(generation, add=generation.entries)
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await self._deactivate(generation)
                self._place(error, record)
                if not must_pass(error):
                    told.append(error)
                raise
            record.move(State.ACTIVE)
            self._go_live(generation)
            told.append("plugin:activated")

    async def reload(
        self, record: PluginRecord, plugin: Plugin, given: Any, spare: frozenset[int]
    ) -> None:
        """Replace a generation; see `Kernel.reload`."""
        async with self.alone(record) as told:
            old = record.current
            if old is None:
                raise StateError(f"it is {record.state}", plugin=record.name, remedy="Load it.")
            begin = time.perf_counter()
            new: Generation | None = None
            try:
                await self._ask("plugin:reload", record)
                new = await self._make(
                    record, plugin, merge(old.given, as_config(given, record.name))
                )
                if record.active:
                    await self._activate(new)
                    hand_over = functools.partial(_hand_over, old, new)
                    before = await self.transactions.commit(
                        new, add=new.entries, remove=old.entries, swapping=hand_over
                    )
                else:
                    _hand_over(old, new)
                    before = self.bus.registry
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    if new is not None:
                        await self._end(new)
                        await self._discard(new, error)
                self._place(error, record)
                if not must_pass(error):
                    told.append(error)
                raise
            record.current, record.plugin = new, plugin
            old.live = False
            new.open = False
            if record.active:
                self._go_live(new, begin)
            with anyio.CancelScope(shield=True):
                await self._retire(old, before, spare)
            told.append("plugin:loaded")
        if new.given != old.given:
            await self.bus.emit("config:change", new.config, record)

    def _require(self, record: PluginRecord) -> None:
        for name in record.needs():
            needed = self.kernel.get(name)
            if needed is None or not needed.active:
                raise DependencyError(
                    f"it needs the plugin {name!r}, which is "
                    f"{needed.state if needed else 'not there'}",
                    plugin=record.name,
                    path=record.source,
                    remedy=f"Load {name} first, or take it out of `dependencies`.",
                )

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


def _hand_over(old: Generation, new: Generation) -> None:
    export, take = old.plugin.life_cycle("export_state"), new.plugin.life_cycle("import_state")
    if export is None or take is None:
        return
    try:
        take(export(), old.version)
    except Exception as error:
        raise LoadError(
            f"the state of {old.version} could not be handed over: {type(error).__name__}: {error}",
            step="import_state",
            plugin=new.name,
            path=new.plugin.source,
            remedy="The old generation goes on; mend export_state() or import_state().",
        ) from error


def _step(error: BaseException) -> str:
    return getattr(error, "step", "load")


def _line(error: BaseException, source: Path | None) -> int | None:
    """The last line of a plugin's own file in a traceback."""
    line, trace = None, error.__traceback__
    while trace is not None and source is not None:
        if trace.tb_frame.f_code.co_filename.startswith(str(source)):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line

"""The operations of the life cycle: load, unload, switch off and on (for reload see `_reload`).

Each runs in a task of the kernel's root, one at a time on a plugin. A step that fails leaves what
was before: a load nothing, an unload that is refused the plugin.
"""

from __future__ import annotations

import functools
import logging
import time
import weakref
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from .._bus.events import Origin
from .._bus.handles import STAGING
from .._bus.limits import must_pass
from .._bus.registry import Registry
from ..errors import (
    DependencyError,
    LoadError,
    LoadTimeout,
    RefusedError,
    StateError,
    VekoError,
)
from .config import as_config, validated
from .context import Context
from .dependents import refuse_if_needed
from .generation import Generation, Operation, PluginRecord, State
from .plugin import Plugin
from .retirement import Retirement
from .transactions import Transactions

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["Operations", "Told"]

_log: Final = logging.getLogger("veko")
Told = list[tuple[PluginRecord, str | BaseException]]
"""Events and errors, of which somebody is told when the plugins' locks are free."""
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
        async with self.alone("load", record) as told:
            begin = time.perf_counter()
            generation: Generation | None = None
            try:
                self.require(record, record.needs())
                await self.ask("plugin:load", record)
                generation = await self.make(record, plugin, given)
                await self.ask("plugin:activate", record)
                await self.activate(generation)
                await self.transactions.commit(
                    generation,
                    add=generation.entries,
                    swapping=functools.partial(self._check_welcome, generation),
                )
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await self._undo(record, generation, error)
                if not must_pass(error):
                    told.append((record, error))
                    if not (retried and isinstance(error, LoadError) and error.step in RETRIED):
                        told.append((record, "error:critical"))
                raise
            record.current = generation
            record.move(State.ACTIVE)
            self.go_live(generation, begin)
            told.extend(((record, "plugin:loaded"), (record, "plugin:activated")))

    @asynccontextmanager
    async def alone(self, step: str, *records: PluginRecord) -> AsyncIterator[Told]:
        """Hold the locks of plugins, taken in order of arrival; then tell what was appended.

        Who hears of it may then act on the plugins.

        Args:
            step: What is being done, for interceptors.
            records: The plugins, first the one that it is done to.
        """
        told: Told = []
        try:
            async with AsyncExitStack() as stack:
                for record in sorted(records, key=lambda record: record.rank):
                    await stack.enter_async_context(record.lock)
                with Operation(*records), self.bus.step(step, records[0]):
                    yield told
        finally:
            for record, one in told:
                if isinstance(one, BaseException):
                    await self.bus.report(one, owner=record, handler=f"{record.name}.{_step(one)}")
                elif one == "error:critical":
                    origin = Origin(record.name, handler=f"{record.name}.{record.failed_step}")
                    await self.bus.emit(one, record.error, origin)
                else:
                    await self.bus.emit(one, record.name, record)

    async def make(
        self,
        record: PluginRecord,
        plugin: Plugin,
        given: Any,
        group: dict[str, Generation] | None = None,
    ) -> Generation:
        """Make a generation and run its `load()`; if that fails, nothing of it is left."""
        record.generations += 1
        generation = Generation(self.kernel, record, plugin, record.generations)
        generation.group = {} if group is None else group
        try:
            generation.given = as_config(given, record.name)
            generation.config = await validated(self.bus, generation, generation.given)
            generation.context = Context(generation)
            await self.bus.emit("context:create", generation.context)
            await self._call(generation, "load")
            generation.loaded = True
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self.discard(generation, error)
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
            with self.bus.step(f"{step}()", generation):
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

    def go_live(self, generation: Generation, begin: float | None = None) -> None:
        if begin is not None:
            generation.record.loaded_at = datetime.now(UTC)
            generation.record.load_duration = time.perf_counter() - begin
        generation.open, generation.live = False, True
        generation.scope.start_tasks()
        generation.settle()

    async def discard(self, generation: Generation, error: BaseException) -> None:
        """End and close a generation that never went live."""
        await self.end(generation)
        generation.open, generation.closed = False, True
        generation.settle(error if isinstance(error, Exception) else StateError("cancelled"))
        for fault in await generation.scope.close(self.kernel.timeout):
            _log.error("closing %s failed", generation.name, exc_info=fault)

    async def _undo(
        self, record: PluginRecord, generation: Generation | None, error: BaseException
    ) -> None:
        """Take back a load that failed."""
        if generation is not None and not generation.closed:
            await self.discard(generation, error)
        self.place(error, record)
        record.fail(_step(error), error)

    @staticmethod
    def place(error: BaseException, record: PluginRecord) -> None:
        """Say in an error whose it is, if that does not stand there yet."""
        if isinstance(error, VekoError):
            error.plugin = error.plugin or record.name
            error.path = error.path or record.source

    async def activate(self, generation: Generation) -> None:
        before = set(generation.held)
        try:
            await self._call(generation, "activate")
            generation.activated = True
        finally:
            generation.passing = [h for h in generation.held if h not in before]
            if not generation.activated:
                self._let_go(generation)

    async def end(self, generation: Generation) -> None:
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

    async def unload(
        self, record: PluginRecord, leaving: Sequence[PluginRecord] | None, spare: frozenset[int]
    ) -> None:
        """Unload a plugin; see `Kernel.unload`. With those `leaving`, or by force."""
        async with self.alone("unload", record) as told:
            generation = record.current
            if generation is None:
                return
            if leaving is not None:
                await self.ask("plugin:unload", record)
                if record.active:
                    await self.ask("plugin:deactivate", record)
            was_active = record.active
            try:
                before = await self._remove(generation, "unload", leaving)
            except Exception as error:
                if leaving is not None:
                    raise
                _log.error("%s leaves though it was refused", record.name, exc_info=error)
                before = self.bus.registry
                self.bus.change(remove=generation.entries)
            generation.live = False
            record.move(State.UNLOADING)
            earlier = tuple(record.retiring)
            await Retirement(self, [generation], before, spare).run()
            for one in earlier:
                await one.wait(spare)
            record.current = None
            record.move(State.UNLOADED)
            self.kernel.forget(record)  # it would keep the plugin's module
            if was_active:
                told.append((record, "plugin:deactivated"))
            told.append((record, "plugin:unloaded"))

    async def _remove(
        self, generation: Generation, verb: str, leaving: Sequence[PluginRecord] | None
    ) -> Registry:
        def check() -> None:  # somebody may have come to need it since this was asked for
            if leaving is not None:
                refuse_if_needed(self.kernel, generation.record, verb, leaving)

        return await self.transactions.commit(generation, remove=generation.entries, swapping=check)

    async def switch_off(
        self, record: PluginRecord, leaving: Sequence[PluginRecord], spare: frozenset[int]
    ) -> None:
        """Switch a plugin off; see `Kernel.toggle`."""
        async with self.alone("toggle", record) as told:
            generation = record.current
            if generation is None or not record.active:
                return
            await self.ask("plugin:deactivate", record)
            before = await self._remove(generation, "switch off", leaving)
            generation.live = False
            record.move(State.INACTIVE)
            await Retirement(self, [generation], before, spare).quiesce()
            await self._deactivate(generation)
            told.append((record, "plugin:deactivated"))

    async def switch_on(self, record: PluginRecord) -> None:
        """Switch a plugin on; see `Kernel.toggle`."""
        async with self.alone("toggle", record) as told:
            generation = record.current
            if generation is None or record.active:
                return
            self.require(record, record.needs())
            self.check_fresh(generation)
            await self.ask("plugin:activate", record)
            try:
                await self.activate(generation)
                await self.transactions.commit(generation, add=generation.entries)
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await self._deactivate(generation)
                self.place(error, record)
                if not must_pass(error):
                    told.append((record, error))
                raise
            record.move(State.ACTIVE)
            self.go_live(generation)
            told.append((record, "plugin:activated"))

    def require(self, record: PluginRecord, names: Iterable[str]) -> None:
        """Raise unless the plugins that one needs are active."""
        for name in names:
            needed = self.kernel.get(name)
            if needed is None or not needed.active:
                raise DependencyError(
                    f"it needs the plugin {name!r}, which is "
                    f"{needed.state if needed else 'not there'}",
                    plugin=record.name,
                    path=record.source,
                    remedy=f"Load {name} first, or take it out of `dependencies`.",
                )

    def check_fresh(self, *generations: Generation) -> None:
        """Raise if what generations have used is no longer live."""
        for generation in generations:
            for service, (name, used) in generation.uses.items():
                if name not in generation.group and not getattr(used(), "live", False):
                    raise LoadError(
                        f"{name}, whose service {service!r} it holds, was replaced or left since",
                        plugin=generation.name,
                        path=generation.plugin.source,
                        remedy="Load it again, or reload it.",
                    )

    def _check_welcome(self, generation: Generation) -> None:
        self.kernel.check_not_closing()  # it would not be unloaded
        self.check_fresh(generation)

    async def ask(self, event: str, record: PluginRecord) -> None:
        """Emit what hooks may refuse by raising."""
        try:
            await self.bus.emit(event, record.name, record, strict=True)
        except Exception as error:
            raise RefusedError(
                f"a hook refused it: {type(error).__name__}: {error}",
                plugin=record.name,
                event=event,
                remedy="What the hook raised is the cause.",
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

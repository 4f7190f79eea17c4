"""The operations of the life cycle: load, unload, switch off and on (for reload see `_reload`).

Each runs in a task of the kernel's root, one at a time on a plugin. A step that fails leaves what
was before: a load nothing, an unload that is refused the plugin.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import anyio

from .._bus.events import Origin
from .._bus.limits import must_pass
from .._bus.registry import Registry
from ..errors import DependencyError, LoadError
from .generation import Generation, Operation, PluginRecord, State
from .plugin import Plugin
from .retirement import Retirement
from .runtime import Runtime
from .steps import Steps
from .transactions import Transactions

__all__ = ["Operations", "Told"]

_log: Final = logging.getLogger("veko")
Told = list[tuple[PluginRecord, str | BaseException]]
"""Events and errors, of which somebody is told when the plugins' locks are free."""
RETRIED: Final = ("load", "activate")
"""Steps whose failure may pass; a bad manifest or a name that is taken does not."""


class Operations:
    """What a kernel does to its plugins."""

    def __init__(self, runtime: Runtime, transactions: Transactions, steps: Steps) -> None:
        self.runtime = runtime
        self.bus = runtime.bus
        self.transactions = transactions
        self.steps = steps

    async def load(self, record: PluginRecord, plugin: Plugin, given: Any, retried: bool) -> None:
        """Load a plugin; see `Kernel.load`."""
        async with self.alone("load", record) as told:
            begin = time.perf_counter()
            generation: Generation | None = None
            try:
                self.require(record, record.needs())
                await self.steps.ask("plugin:load", record)
                generation = await self.steps.make(record, plugin, given)
                await self.steps.ask("plugin:activate", record)
                await self.steps.activate(generation)
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
            self.steps.go_live(generation, begin)
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

    async def _undo(
        self, record: PluginRecord, generation: Generation | None, error: BaseException
    ) -> None:
        """Take back a load that failed."""
        if generation is not None and not generation.closed:
            await self.steps.discard(generation, error)
        self.steps.place(error, record)
        record.fail(_step(error), error)

    async def unload(
        self, record: PluginRecord, leaving: Sequence[PluginRecord] | None, spare: frozenset[int]
    ) -> None:
        """Unload a plugin; see `Kernel.unload`. With those `leaving`, or by force."""
        async with self.alone("unload", record) as told:
            generation = record.current
            if generation is None:
                return
            if leaving is not None:
                await self.steps.ask("plugin:unload", record)
                if record.active:
                    await self.steps.ask("plugin:deactivate", record)
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
            await Retirement(self.runtime, self.steps, [generation], before, spare).run()
            for one in earlier:
                await one.wait(spare)
            record.current = None
            record.move(State.UNLOADED)
            self.runtime.forget(record)  # it would keep the plugin's module
            if was_active:
                told.append((record, "plugin:deactivated"))
            told.append((record, "plugin:unloaded"))

    async def _remove(
        self, generation: Generation, verb: str, leaving: Sequence[PluginRecord] | None
    ) -> Registry:
        def check() -> None:  # somebody may have come to need it since this was asked for
            if leaving is not None:
                self.runtime.refuse_if_needed(generation.record, verb, leaving)

        return await self.transactions.commit(generation, remove=generation.entries, swapping=check)

    async def switch_off(
        self, record: PluginRecord, leaving: Sequence[PluginRecord], spare: frozenset[int]
    ) -> None:
        """Switch a plugin off; see `Kernel.toggle`."""
        async with self.alone("toggle", record) as told:
            generation = record.current
            if generation is None or not record.active:
                return
            await self.steps.ask("plugin:deactivate", record)
            before = await self._remove(generation, "switch off", leaving)
            generation.live = False
            record.move(State.INACTIVE)
            await Retirement(self.runtime, self.steps, [generation], before, spare).quiesce()
            await self.steps.deactivate(generation)
            told.append((record, "plugin:deactivated"))

    async def switch_on(self, record: PluginRecord) -> None:
        """Switch a plugin on; see `Kernel.toggle`."""
        async with self.alone("toggle", record) as told:
            generation = record.current
            if generation is None or record.active:
                return
            self.require(record, record.needs())
            self.check_fresh(generation)
            await self.steps.ask("plugin:activate", record)
            try:
                await self.steps.activate(generation)
                await self.transactions.commit(generation, add=generation.entries)
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await self.steps.deactivate(generation)
                self.steps.place(error, record)
                if not must_pass(error):
                    told.append((record, error))
                raise
            record.move(State.ACTIVE)
            self.steps.go_live(generation)
            told.append((record, "plugin:activated"))

    def require(self, record: PluginRecord, names: Iterable[str]) -> None:
        """Raise unless the plugins that one needs are active."""
        for name in names:
            needed = self.runtime.get(name)
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
        self.runtime.check_not_closing()  # it would not be unloaded
        self.check_fresh(generation)


def _step(error: BaseException) -> str:
    return getattr(error, "step", "load")

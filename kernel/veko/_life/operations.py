"""The operations of the life cycle: load, unload, switch off and on (see `reload` for reloading).

They run one at a time on a plugin. A step that fails restores what was before: a failed load
leaves nothing, a refused unload leaves the plugin.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from .._bus.limits import must_pass
from .._bus.registry import Registry
from .generation import Generation, PluginRecord
from .locks import alone
from .plugin import Plugin
from .retirement import Retirement
from .runtime import Runtime
from .states import State
from .steps import Steps
from .transactions import Transactions

__all__ = ["Operations"]

_log: Final = logging.getLogger("veko")


class Operations:
    """What a kernel does to its plugins."""

    def __init__(self, runtime: Runtime, transactions: Transactions, steps: Steps) -> None:
        self.runtime = runtime
        self.bus = runtime.bus
        self.transactions = transactions
        self.steps = steps

    async def load(
        self,
        record: PluginRecord,
        plugin: Plugin,
        given: Any,
        again: Callable[[BaseException], bool] | None = None,
    ) -> None:
        """Load a plugin; see `Kernel.load`."""
        async with alone(self.bus, "load", record) as afterwards:
            begin = time.perf_counter()
            generation: Generation | None = None
            try:
                self.runtime.note_need(record)
                self.runtime.require(record, self.runtime.needs(record))
                await self.steps.ask("plugin:load", record)
                made = generation = await self.steps.make(record, plugin, given)
                await self.steps.ask("plugin:activate", record)
                await self.steps.activate(made)
                # A kernel that has begun to close would not unload it any more
                # (test_what_has_loaded_while_closing_is_unloaded).
                check = self.runtime.check_not_closing
                await self.transactions.commit(
                    made, add=made.entries, incoming=[made], swapping=check
                )
            except BaseException as error:
                try:
                    if generation is not None and not generation.closed:
                        await self.steps.discard(error, generation)
                finally:
                    record.locate(error)
                    record.fail(getattr(error, "step", "load"), error)
                    if not must_pass(error):
                        passing = again is not None and again(error)
                        afterwards.report(record, error, passing=passing)
                        if not passing:
                            afterwards.stopped(record, error)
                raise
            record.current = generation
            record.move(State.ACTIVE)
            generation.go_live(begin)
            afterwards.announce(record, "plugin:loaded", "plugin:activated")

    async def unload(
        self, record: PluginRecord, leaving: Sequence[PluginRecord] | None, spare: frozenset[int]
    ) -> None:
        """Unload a plugin; see `Kernel.unload`.

        Args:
            record: The plugin.
            leaving: The plugins that are still to be unloaded together, this one first and the one
                that the others need last; `None` to unload by force.
            spare: Ids of tokens of the caller's own emissions, which are not waited for.
        """
        async with alone(self.bus, "unload", record) as afterwards:
            generation = record.current
            if generation is None:
                return
            if leaving is not None:
                if record is not leaving[-1] and not record.active:
                    return  # it was switched off meanwhile
                await self.steps.ask("plugin:unload", record)
                if record.active:
                    await self.steps.ask("plugin:deactivate", record)
            was_active = record.active
            try:
                before = await self._remove(generation, "unload", leaving)
            except Exception as error:
                if leaving is not None:
                    raise
                _log.error("%s is unloaded though this refused it", record.name, exc_info=error)
                before = self.bus.registry
                self.bus.change(remove=generation.entries)
            generation.live = False
            if record.state is not State.UNLOADING:  # it was, if this was cut off before
                record.move(State.UNLOADING)
            earlier = tuple(record.retiring)
            await Retirement(self.runtime, self.steps, [generation], before, spare).run()
            for one in earlier:
                await one.wait(spare)
            record.current = None
            record.move(State.UNLOADED)
            self.runtime.forget(record)
            if was_active:
                afterwards.announce(record, "plugin:deactivated")
            afterwards.announce(record, "plugin:unloaded")

    async def _remove(
        self,
        generation: Generation,
        verb: str,
        leaving: Sequence[PluginRecord] | None,
        *,
        users: bool = False,
    ) -> Registry:
        def check() -> None:  # a plugin may have come to need it since this was asked for
            if leaving is not None:
                self.runtime.refuse_if_needed(generation.record, verb, leaving, users=users)

        return await self.transactions.commit(generation, remove=generation.entries, swapping=check)

    async def switch_off(
        self,
        record: PluginRecord,
        leaving: Sequence[PluginRecord],
        spare: frozenset[int],
        *,
        users: bool = False,
    ) -> bool:
        """Switch a plugin off; see `Kernel.toggle`. Returns whether it was on."""
        async with alone(self.bus, "toggle", record) as afterwards:
            generation = record.current
            if generation is None or not record.active:
                return False
            await self.steps.ask("plugin:deactivate", record)
            before = await self._remove(generation, "switch off", leaving, users=users)
            generation.live = False
            record.move(State.INACTIVE)
            await Retirement(self.runtime, self.steps, [generation], before, spare).quiesce()
            await self.steps.deactivate(generation)
            afterwards.announce(record, "plugin:deactivated")
        return True

    async def switch_on(self, record: PluginRecord) -> bool:
        """Switch a plugin on; see `Kernel.toggle`. Returns whether it was off."""
        async with alone(self.bus, "toggle", record) as afterwards:
            generation = record.current
            if generation is None or record.active:
                return False
            self.runtime.require(record, self.runtime.needs(record))
            self.runtime.check_fresh([generation])
            await self.steps.ask("plugin:activate", record)
            try:
                await self.steps.activate(generation)
                await self.transactions.commit(generation, add=generation.entries)
            except BaseException as error:
                try:
                    await self.steps.take_back(generation)
                finally:
                    record.locate(error)
                    if not must_pass(error):
                        record.fail(getattr(error, "step", "activate"), error)
                        generation.count_error(error)
                        afterwards.report(record, error)
                raise
            record.move(State.ACTIVE)
            generation.go_live()
            afterwards.announce(record, "plugin:activated")
        return True

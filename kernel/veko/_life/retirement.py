"""Retirement: what happens to generations that have left the registry.

Calls that began before are waited for, then cut; tasks end, `deactivate()` and `unload()` run, the
scope closes: in bounded time, whatever the plugin does. At most `WAITING` generations of a plugin
wait for their calls at once; when another one comes, the oldest is cut.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from .._bus.frames import cut, move_on
from .._bus.registry import Registry
from ..errors import LoadTimeout, StateError
from .generation import Generation
from .locks import Operation
from .runtime import Runtime
from .steps import Steps

__all__ = ["WAITING", "Retirement"]

_log: Final = logging.getLogger("veko")
WAITING: Final = 2
_MANY: Final = 100


class Retirement:
    """Generations that left the registry together.

    Args:
        runtime: The kernel's runtime.
        steps: The kernel's steps.
        generations: The generations, each before those that it needs: a plugin can still use its
            services while it unloads.
        before: The last registry that had them.
        spare: Ids of tokens of emissions not to wait for.

    Attributes:
        done: Set when they have ended.
    """

    def __init__(
        self,
        runtime: Runtime,
        steps: Steps,
        generations: Sequence[Generation],
        before: Registry,
        spare: frozenset[int],
    ) -> None:
        self._runtime = runtime
        self._steps = steps
        self._generations = generations
        self._before = before
        # The emissions that the caller itself runs in: they end after the operation does, so
        # waiting for them would be waiting for itself (test_a_call_of_the_old_may_unload_the
        # _plugin, test_the_callers_own_call_is_never_cut).
        self._spare = set(spare)
        self._drain = anyio.CancelScope()
        self.done = anyio.Event()

    def start(self) -> None:
        """Run it in a task of the root; `plugin:retired` is emitted at the end."""
        for generation in self._generations:
            waiting = generation.record.retiring
            waiting.append(self)
            for older in waiting[:-WAITING]:
                older.cut()
        self._runtime.root.start(self._go)

    def cut(self) -> None:
        """Stop waiting for its calls, and cancel them."""
        self._drain.cancel()

    async def wait(self, spare: frozenset[int]) -> None:
        """Wait until it has ended; the caller's own calls into it are not waited for."""
        self._spare |= spare
        self._runtime.bus.settle()
        await self.done.wait()

    async def _go(self) -> None:
        try:
            with Operation(*(one.record for one in self._generations)):
                await self.run()
        finally:
            for generation in self._generations:
                generation.record.retiring.remove(self)
            self.done.set()
        for one in self._generations:
            await self._runtime.bus.emit("plugin:retired", one.name, one.record, one.plugin)

    async def run(self) -> None:
        """End them; failures are reported and do not stop it."""
        # Calls first, then tasks, then deactivate() and unload(), resources last: each may use
        # what comes after it (test_running_calls_drain_before_deactivate,
        # test_resources_close_in_reverse_order).
        await self.quiesce()
        for generation in self._generations:
            # The swap of so many, their end, and letting go of them are enough for a step each.
            many = len(generation.entries) > _MANY
            if many:
                await cancel_shielded_checkpoint()
            error = StateError("this generation of the plugin has ended", plugin=generation.name)
            for fault in await self._steps.end(generation, error):
                await self._runtime.bus.report(
                    fault, owner=generation, handler=f"{generation.name}.close"
                )
            generation.entries.clear()
            generation.handles.clear()
            if many:
                await cancel_shielded_checkpoint()

    async def quiesce(self) -> None:
        """Wait for the calls that still run in them, cut those that do not end, stop the tasks."""
        self._drain.deadline = anyio.current_time() + self._runtime.left(
            self._runtime.drain_timeout
        )
        with self._drain:
            await self._drained()
        if self._drain.cancelled_caught:
            await self._cut_calls()
        for generation in self._generations:
            # An emission that the caller runs in is not waited for, and continues after this
            # (test_no_hook_of_a_plugin_runs_after_its_unload).
            self._runtime.bus.silence(generation)
        for generation in self._generations:
            await self._steps.stop_tasks(generation)

    async def _drained(self) -> None:
        for generation in self._generations:
            if not generation.closed:
                await self._runtime.bus.drained(self._before, generation, self._spare)

    async def _cut_calls(self) -> None:
        cancelled = cut(self._generations, self._before, self._spare)
        for generation, calls in cancelled.items():
            error = LoadTimeout(
                f"{calls} calls into generation {generation.number} still ran when its time was "
                "over, and were cancelled",
                step="drain",
                plugin=generation.name,
                remedy=f"Calls have drain_timeout ({self._runtime.drain_timeout:g} s) to end, or "
                "less if the plugin is reloaded twice meanwhile.",
            )
            await self._runtime.bus.report(
                error, owner=generation, handler=f"{generation.name}.drain"
            )
        staying = {record.name for record in self._runtime.records() if record.retiring}
        staying |= {one.name for one in self._generations}
        move_on(self._runtime.bus.older, self._before, staying)
        with anyio.move_on_after(self._runtime.grace) as scope:
            await self._drained()
        if scope.cancelled_caught:
            names = ", ".join(one.name for one in self._generations)
            _log.warning("work that may call %s still runs; it continues without it", names)

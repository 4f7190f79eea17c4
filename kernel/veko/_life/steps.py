"""Steps: calling a plugin's life-cycle functions, in bounded time, and making its generations.

What a function registers meanwhile waits for the swap. A step that fails leaves nothing behind.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from .._bus.failures import location_of
from .._bus.handles import STAGING
from .._bus.limits import CLOSING_GRACE, is_cancellation, must_pass
from ..errors import LoadError, LoadTimeout, RefusedError, StateError, VekoError, text_of
from .config import as_config, validated
from .generation import Changes, Generation, PluginRecord
from .locks import Operation
from .plugin import Plugin
from .runtime import Runtime

__all__ = ["Steps"]

_log: Final = logging.getLogger("veko")


class Steps:
    """The steps of a kernel's plugins.

    Args:
        runtime: The kernel's runtime.
        changes: Adds single entries of live plugins to the registry, and removes them.
        context: Makes the context of a generation.
    """

    def __init__(
        self, runtime: Runtime, changes: Changes, context: Callable[[Generation], Any]
    ) -> None:
        self._runtime = runtime
        self._bus = runtime.bus
        self._changes = changes
        self._context = context

    async def make(
        self,
        record: PluginRecord,
        plugin: Plugin,
        given: Any,
        group: dict[str, Generation] | None = None,
    ) -> Generation:
        """Make a generation and run its `load()`; if that fails, nothing of it is left."""
        record.generations += 1
        number = record.generations
        generation = Generation(self._runtime.root, self._changes, record, plugin, number)
        generation.group = {} if group is None else group
        try:
            generation.given = as_config(given, record.name)
            generation.config = await validated(self._bus, generation, generation.given)
            generation.context = self._context(generation)
            await self._bus.emit("context:create", generation.context)
            await self._call(generation, "load")
            generation.loaded = True
        except BaseException as error:
            await self.discard(error, generation)
            raise
        return generation

    async def _call(self, generation: Generation, step: str) -> None:
        """Call a life-cycle function; what it registers meanwhile waits for the swap."""
        token = STAGING.set(weakref.ref(generation))
        runtime = self._runtime
        call, app = generation.plugin.call_life_cycle, runtime.app
        run = functools.partial(call, step, app, generation.config, generation.context)
        try:
            with self._bus.step(f"{step}()", generation):
                seconds, grace = runtime.timeout, CLOSING_GRACE
                if runtime.closing_by is not None:
                    seconds, grace = runtime.left(seconds), runtime.left(grace)
                await runtime.root.call(run, seconds, step, generation.name, grace)
        except VekoError as error:
            if isinstance(error, LoadTimeout):
                if generation.open and generation.awaited is not None:
                    error.message += f"; it waited for the service {generation.awaited!r}"
                await self._bus.emit("plugin:timeout", generation.name, error)
            raise
        except BaseException as error:
            if must_pass(error):
                raise
            found = location_of(error, generation.source)
            raise LoadError(
                f"{step}() raised {type(error).__name__}: {text_of(error)}",
                step=step,
                plugin=generation.name,
                path=generation.source if found is None else found.path,
                line=None if found is None else found.line,
                remedy="Nothing that it registered is left; fix it and load it again.",
            ) from error
        finally:
            STAGING.reset(token)

    async def activate(self, generation: Generation) -> None:
        """Run `activate()`, and note what it registered."""
        if generation.plugin.life_cycle("activate") is None:
            generation.activated = True
            return
        before = set(generation.held)
        try:
            await self._call(generation, "activate")
            generation.activated = True
        finally:
            generation.passing = [h for h in generation.held if h not in before]
            if not generation.activated:
                self._remove_passing(generation)

    async def deactivate(self, generation: Generation) -> None:
        """Run `deactivate()` if `activate()` has run, and remove what that registered."""
        if generation.activated:
            generation.activated = False
            await self._quietly(generation, "deactivate")
            self._remove_passing(generation)

    @staticmethod
    def _remove_passing(generation: Generation) -> None:
        while generation.passing:
            generation.passing.pop().cancel()

    async def end(self, generation: Generation, error: Exception) -> list[BaseException]:
        """Run `deactivate()` and `unload()`, as far as their counterparts have run, and close.

        Args:
            generation: The generation; nothing of it is in the registry any more.
            error: What awaiting a handle of it raises from now on.

        Returns:
            What closing its tasks and resources raised.
        """
        await self.deactivate(generation)
        if generation.loaded:
            generation.loaded = False
            await self._quietly(generation, "unload")
        generation.open, generation.closed = False, True
        generation.settle(error)
        module = getattr(generation.plugin.module, "__name__", None)
        if isinstance(module, str):
            self._runtime.bus.live.forget_types(module)
        return await generation.scope.close(
            self._runtime.left(self._runtime.timeout), self._runtime.grace
        )

    async def discard(self, error: BaseException, *generations: Generation) -> None:
        """End generations that never went live, whatever happens to this task meanwhile."""
        why = error if isinstance(error, Exception) else StateError("cancelled")
        await self._runtime.root.finish(self._discard, why, generations)

    async def _discard(self, why: Exception, generations: Sequence[Generation]) -> None:
        with Operation(*(one.record for one in generations)):
            for generation in generations:
                await self.stop_ahead(generation)
                for fault in await self.end(generation, why):
                    _log.error("closing %s failed", generation.name, exc_info=fault)

    async def stop_tasks(self, generation: Generation) -> None:
        """Cancel the tasks and wait until they end; those that do not are reported."""
        runtime = self._runtime
        for line in await generation.scope.stop_tasks(runtime.left(runtime.timeout), runtime.grace):
            await runtime.failed(generation, line, LoadTimeout(line, step="close"))

    async def stop_ahead(self, generation: Generation) -> None:
        """Stop the tasks if they run ahead: the generation does not go live now."""
        if generation.ahead:
            generation.ahead = False
            await self.stop_tasks(generation)

    async def take_back(self, generation: Generation) -> None:
        """Undo `activate()`, whatever happens to this task meanwhile."""
        await self._runtime.root.finish(self._take_back, generation)

    async def _take_back(self, generation: Generation) -> None:
        with Operation(generation.record):
            await self.deactivate(generation)

    async def _quietly(self, generation: Generation, step: str) -> None:
        """Call a life-cycle function whose failure must not stop the operation: report it."""
        if generation.plugin.life_cycle(step) is None:
            return
        try:
            await self._call(generation, step)
        except BaseException as error:
            if is_cancellation(error):
                raise
            await self._bus.report(error, owner=generation, handler=f"{generation.name}.{step}")

    async def ask(self, event: str, record: PluginRecord) -> None:
        """Emit an event whose hooks may refuse the step by raising.

        Raises:
            RefusedError: A hook raised.
        """
        try:
            await self._bus.emit(event, record.name, record, strict=True)
        except Exception as error:
            raise RefusedError(
                f"a hook refused it: {type(error).__name__}: {error}",
                plugin=record.name,
                event=event,
                remedy="The cause is what the hook raised.",
            ) from error

"""Steps: calling a plugin's life-cycle functions, in bounded time, and making its generations.

What a function registers meanwhile waits for the swap. A step that fails leaves nothing.
"""

from __future__ import annotations

import functools
import logging
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio

from .._bus.handles import STAGING
from .._bus.limits import must_pass
from ..errors import LoadError, LoadTimeout, RefusedError, StateError, VekoError
from .config import as_config, validated
from .generation import Changes, Generation, PluginRecord
from .plugin import Plugin
from .runtime import Runtime

__all__ = ["Steps"]

_log: Final = logging.getLogger("veko")


class Steps:
    """The steps of a kernel's plugins.

    Args:
        runtime: The kernel's.
        changes: What brings single entries of live plugins into the registry.
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
            plugin.call_life_cycle, step, self._runtime.app, generation.config, generation.context
        )
        try:
            with self._bus.step(f"{step}()", generation):
                await self._runtime.root.call(run, self._runtime.timeout, step, generation.name)
        except VekoError as error:
            if isinstance(error, LoadTimeout):
                await self._bus.emit("plugin:timeout", generation.name, error)
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
        for fault in await generation.scope.close(self._runtime.timeout):
            _log.error("closing %s failed", generation.name, exc_info=fault)

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
        await self.deactivate(generation)
        if generation.loaded:
            generation.loaded = False
            await self._quietly(generation, "unload")

    async def deactivate(self, generation: Generation) -> None:
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
            await self._bus.report(error, owner=generation, handler=f"{generation.name}.{step}")

    async def ask(self, event: str, record: PluginRecord) -> None:
        """Emit what hooks may refuse by raising."""
        try:
            await self._bus.emit(event, record.name, record, strict=True)
        except Exception as error:
            raise RefusedError(
                f"a hook refused it: {type(error).__name__}: {error}",
                plugin=record.name,
                event=event,
                remedy="What the hook raised is the cause.",
            ) from error


def _line(error: BaseException, source: Path | None) -> int | None:
    """The last line of a plugin's own file in a traceback."""
    line, trace = None, error.__traceback__
    while trace is not None and source is not None:
        if trace.tb_frame.f_code.co_filename.startswith(str(source)):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line

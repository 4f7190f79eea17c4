"""Probation: a new generation that fails too often is rolled back to the one before.

Before the core plugin `health` switches a failing plugin off, it asks here. If the plugin got new
code less than `seconds` ago, the code before is loaded as one more generation and swapped in, and
the plugin stays on.

Cost: the sources of the replaced generation, in memory, and a task, until the probation ends.
Promise: after several reloads within one probation, Veko rolls back to the last generation that
passed. A generation that was rolled back to is not on probation, so versions do not alternate.
State is handed back too, unless that fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from veko import Event, Plugin, PluginRecord, VekoError

from ._source.loading import Loading

if TYPE_CHECKING:
    from veko import Context

__all__ = ["EVENTS", "Probation", "ProbationError"]

EVENTS: Final = (
    Event(
        "plugin:rollback",
        str,
        doc="A generation failed too often within its probation and was rolled back. Arguments: "
        "the plugin's name, the plugin, the reason.",
    ),
)


class ProbationError(VekoError):
    """A plugin failed too often soon after a reload and was rolled back. Fix the new version."""


class _Trial(msgspec.Struct):
    """A generation on probation.

    Attributes:
        generation: Its number.
        version: The plugin's version.
        until: The end of the probation, on the clock of the event loop.
        why: The reason to roll back; empty while there is none.
    """

    generation: int
    version: str
    until: float
    why: str = ""


class Probation(Plugin):
    """The service `probation`.

    Args:
        seconds: The length of a probation.
    """

    name = "probation"
    version = "2.0.0"
    description = "Rolls back new versions that fail"
    core = True

    _context: Context
    _loading: Loading

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._trials: dict[str, _Trial] = {}

    def load(self, context: Context) -> None:
        """Provide the service, and follow which generations are loaded."""
        self._context = context
        self._loading = context.use("loading")
        for event in EVENTS:
            context.declare(event)
        context.provide("probation", self)
        context.hook("plugin:loaded", self._loaded)
        context.hook("plugin:unloaded", self._unloaded)

    def take_back(self, record: PluginRecord, why: str) -> bool:
        """Start to roll a plugin back, if it is on probation.

        Args:
            record: The plugin, which fails too often.
            why: The reason, a sentence.

        Returns:
            Whether it is rolled back.
        """
        trial = self._trials.get(record.name)
        if trial is None or trial.generation != record.generation:
            return False
        if not trial.why:
            trial.why = why
            self._context.spawn(self._roll_back, record.name)
        return True

    def _loaded(self, name: str, record: PluginRecord) -> None:
        if not self._loading.can_roll_back(name):
            return
        watched = name in self._trials
        until = anyio.current_time() + self.seconds
        self._trials[name] = _Trial(record.generation, record.version, until)
        if not watched:
            self._context.spawn(self._wait, name)

    def _unloaded(self, name: str) -> None:
        self._trials.pop(name, None)

    async def _wait(self, name: str) -> None:
        while (trial := self._trials.get(name)) is not None:
            left = trial.until - anyio.current_time()
            if left > 0:
                await anyio.sleep(left)
            elif trial.why:
                return  # it is being rolled back
            else:
                del self._trials[name]
                self._loading.end_probation(name)
                self._context.log("info", f"{name} {trial.version} has passed its probation")

    async def _roll_back(self, name: str) -> None:
        """Roll a plugin back. Takes its name, not its record, which the task would keep alive."""
        kernel, trial = self._context.kernel, self._trials.get(name)
        if trial is None:
            return
        try:
            record = await self._loading.roll_back(name)
        except VekoError as failure:
            self._context.log("error", f"{name} {trial.version} cannot be rolled back: {failure}")
            return
        finally:
            self._trials.pop(name, None)
        error = ProbationError(
            f"version {trial.version} was rolled back to {record.version}: {trial.why}",
            plugin=name,
            path=record.source,
            remedy="Fix it and save it; the new content is loaded.",
        )
        await kernel.bus.report(error, owner=record, handler=f"{name}.probation")
        await kernel.bus.emit("plugin:rollback", name, record, trial.why)

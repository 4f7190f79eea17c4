"""Probation: a new generation that fails too often is taken back for the one before.

The idea: whoever judges the health of plugins (the core plugin `health`, with its threshold) asks
here before it switches one off. If that got new code less than `seconds` ago, the code that it had
before comes back as one more generation, swapped in as any other; nothing is switched off.

Cost: the sources of what was replaced, in memory, and a task, until the probation ends.
Promise: of several reloads within one probation the last generation that stood it is the one to go
back to; what came back is not on probation, so there is no going to and fro; the state is handed
back too, unless that fails.
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
        doc="A generation failed too often within its probation, and the one before is back. The "
        "plugin's name, the plugin, and why.",
    ),
)


class ProbationError(VekoError):
    """A plugin failed too often soon after it was reloaded, and is what it was before. Mend it."""


class _Trial(msgspec.Struct):
    """A generation on probation: its number, its version, until when, and why it goes back."""

    generation: int
    version: str
    until: float
    why: str = ""


class Probation(Plugin):
    """The core plugin of probation; the service `probation` is this object.

    Args:
        seconds: How long a new generation is on probation.
    """

    name = "probation"
    version = "2.0.0"
    description = "Takes back new versions that fail"
    core = True

    _context: Context
    _loading: Loading

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._trials: dict[str, _Trial] = {}

    def load(self, context: Context) -> None:
        """Listen to what is loaded."""
        self._context = context
        self._loading = context.use("loading")
        for event in EVENTS:
            context.declare(event)
        context.provide("probation", self)
        context.hook("plugin:loaded", self._loaded)
        context.hook("plugin:unloaded", self._unloaded)

    def take_back(self, record: PluginRecord, why: str) -> bool:
        """Take a plugin back soon, if it is on probation.

        Args:
            record: The plugin; it fails too often.
            why: A sentence that says so.

        Returns:
            Whether that is what happens.
        """
        trial = self._trials.get(record.name)
        if trial is None or trial.generation != record.generation:
            return False
        if not trial.why:
            trial.why = why
            self._context.spawn(self._go_back, record.name)
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
                return  # it goes back
            else:
                del self._trials[name]
                self._loading.end_probation(name)
                self._context.log("info", f"{name} {trial.version} has stood its probation")

    async def _go_back(self, name: str) -> None:
        """Take a plugin back. It gets a name: a task may be kept, and what it was given too."""
        kernel, trial = self._context.kernel, self._trials.get(name)
        if trial is None:
            return
        try:
            record = await self._loading.roll_back(name)
        except VekoError as failure:
            self._context.log("error", f"{name} {trial.version} cannot be taken back: {failure}")
            return
        finally:
            self._trials.pop(name, None)
        error = ProbationError(
            f"version {trial.version} was taken back for {record.version}: {trial.why}",
            plugin=name,
            path=record.source,
            remedy="Mend it and save it: its next content is tried.",
        )
        await kernel.bus.report(error, owner=record, handler=f"{name}.probation")
        await kernel.bus.emit("plugin:rollback", name, record, trial.why)

"""What a scenario has at hand: draws that its seed decides, virtual time, notes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final, TypeVar

from .loop import SimulatedLoop

__all__ = ["Simulation"]

_T = TypeVar("_T")
_TURNS: Final = 6
_SECONDS: Final = (0.0, 0.001, 0.1, 1.0, 10.0)


class Simulation:
    """One run of a scenario. What it draws depends on the seed, and is made smaller if it fails.

    Attributes:
        random: Numbers that depend on the seed and are not made smaller.
        notes: What was noted.
    """

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.random: random.Random = loop.decisions.values
        self.notes: list[str] = []

    @property
    def seed(self) -> int:
        """The number of the run."""
        return self._loop.decisions.number

    @property
    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._loop.elapsed

    def choose(self, options: Sequence[_T]) -> _T:
        """Return one of the options. Put the simplest first: failures are reduced towards it.

        Raises:
            ValueError: There is none.
        """
        if not options:
            raise ValueError("choose() needs at least one option")
        return options[self._loop.decisions.draw(len(options))]

    def integer(self, low: int, high: int) -> int:
        """Return a number from `low` to `high`, both included.

        Raises:
            ValueError: `high` is below `low`.
        """
        if high < low:
            raise ValueError(f"integer() needs low <= high, got {low} and {high}")
        return low + self._loop.decisions.draw(high - low + 1)

    def chance(self, one_in: int = 2) -> bool:
        """Return whether something happens that happens once in so many times."""
        return self.integer(1, one_in) == one_in if one_in > 1 else True

    def times(self, at_most: int) -> Iterator[int]:
        """Count up, for a number of operations that is drawn: `for _ in simulation.times(10)`.

        Each operation that a failure does not need is left out when it is reduced.
        """
        for number in range(at_most):
            if self._loop.decisions.draw(8) == 0:
                return
            yield number

    def note(self, text: str) -> None:
        """Note what the scenario does, for the report of a failure."""
        self.notes.append(f"{self.time:g} s: {text}")

    async def pause(self) -> None:
        """Let other tasks run for a drawn number of turns, or let a drawn time pass."""
        drawn = self._loop.decisions.draw(_TURNS + len(_SECONDS))
        if drawn < _TURNS:
            for _ in range(drawn):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(_SECONDS[drawn - _TURNS])

    async def interrupted(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """Run a coroutine in a task, and cancel it at a drawn moment or not at all.

        Returns:
            What it returned; `None` if it was cancelled.
        """
        task = asyncio.ensure_future(work)
        if self.chance():
            await self.pause()
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not task.cancelled() or (current is not None and current.cancelling()):
                raise
            return None

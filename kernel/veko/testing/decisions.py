"""Decisions: which task runs next, and what a scenario draws; each run is made of them.

Two ways of choosing tasks, and how often each deviates, are drawn from the seed, since no single
way finds every race soon:

- Random priorities with few changes: of the tasks that are ready the one of the highest priority
  runs, and now and then its priority falls below all others. A race that needs d constraints on the
  order is found with a probability that falls with the number of changes, not with the number of
  steps (Burckhardt, Kothari, Musuvathi, Nagarakatte: A Randomized Scheduler with Probabilistic
  Guarantees of Finding Bugs, ASPLOS 2010).
- The usual order with few exceptions (Emmi, Qadeer, Rakamarić: Delay-Bounded Scheduling, POPL
  2011); with as many exceptions as steps it is a random walk.

Both are fair: a task that is ready runs after a bounded number of steps, or a loop that yields and
asks again would keep all others from running.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from ..errors import VekoError

__all__ = ["Decisions", "Recorded"]

_RATES: Final = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
_PATIENCE: Final = (2, 8, 30, 100)
_STEP_SECONDS: Final = (0.0, 0.0, 1e-6, 1e-4)


class Recorded:
    """The decisions of a run, from which it can be repeated.

    Attributes:
        number: The seed of everything that is not decided here.
        draws: What the scenario drew; after the last one it draws 0.
        picks: At which choice (counted from 1) another task ran than the one that had been ready
            for the longest time, and which one: 1 is the next.
    """

    __slots__ = ("draws", "number", "picks")

    def __init__(self, number: int, draws: Sequence[int], picks: dict[int, int]) -> None:
        self.number, self.draws, self.picks = number, tuple(draws), dict(picks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recorded) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        draws = ".".join(map(str, self.draws))
        picks = ".".join(f"{choice}:{pick}" for choice, pick in sorted(self.picks.items()))
        return f"{self.number}/{draws}/{picks}"

    @property
    def size(self) -> tuple[int, int, int, int]:
        """What is to become small: draws first, then picks."""
        return len(self.draws), sum(self.draws), len(self.picks), sum(self.picks.values())

    @classmethod
    def parse(cls, text: str) -> Recorded:
        """Read what `str()` wrote.

        Raises:
            VekoError: It is something else.
        """
        try:
            number, draws, picks = text.split("/")
            pairs = [pick.split(":") for pick in picks.split(".") if pick]
            return cls(
                int(number),
                [int(draw) for draw in draws.split(".") if draw],
                {int(choice): int(pick) for choice, pick in pairs},
            )
        except ValueError as error:
            raise VekoError(
                f"{text!r} is not the seed of a simulation",
                remedy="Give a whole number, or the text that a failure shows.",
            ) from error


class Decisions:
    """Makes the decisions of one run and records them.

    Args:
        number: The seed. Run 0 keeps the usual order.
        recorded: Decisions to repeat instead of drawing new ones.
    """

    def __init__(self, number: int, recorded: Recorded | None = None) -> None:
        self.number = number
        self.draws: list[int] = []
        self.picks: dict[int, int] = {}
        self.choices = 0
        self._recorded = recorded
        # Of strings, so that neighbouring numbers have nothing in common.
        self._scheduling = random.Random(f"schedule {number}")
        self._drawing = random.Random(f"draw {number}")
        self.values = random.Random(f"values {number}")
        draw = self._scheduling
        self.patience = draw.choice(_PATIENCE)
        self.step_seconds = draw.choice(_STEP_SECONDS)
        self._by_priority = draw.random() < 0.5
        self._rate = draw.choice(_RATES) if number else 0.0
        if not number:
            self._by_priority, self.step_seconds = False, 0.0
        self._priorities: dict[int, float] = {}
        self._lowest = 0.0

    @property
    def recorded(self) -> Recorded:
        """What was decided so far."""
        return Recorded(self.number, self.draws, self.picks)

    def draw(self, size: int) -> int:
        """Decide for the scenario: a number from 0 to `size` - 1."""
        if self._recorded is None:
            drawn = self._drawing.randrange(size)
        else:
            at = len(self.draws)
            drawn = min(self._recorded.draws[at], size - 1) if at < len(self._recorded.draws) else 0
        self.draws.append(drawn)
        return drawn

    def pick(self, ready: Sequence[int], waited: int) -> int:
        """Decide which one runs.

        Args:
            ready: Numbers of the tasks that are ready, the one that became so first first.
            waited: For how many steps that one has been ready.

        Returns:
            The position in `ready`.
        """
        self.choices += 1
        if self._recorded is not None:
            picked = min(self._recorded.picks.get(self.choices, 0), len(ready) - 1)
        elif waited > self.patience * len(ready):
            picked = 0
        elif self._by_priority:
            picked = self._highest(ready)
        else:
            draw = self._scheduling
            picked = draw.randrange(len(ready)) if draw.random() < self._rate else 0
        if picked:
            self.picks[self.choices] = picked
        return picked

    def _highest(self, ready: Sequence[int]) -> int:
        priorities, draw = self._priorities, self._scheduling
        best, at = -1e9, 0
        for position, number in enumerate(ready):
            priority = priorities.get(number)
            if priority is None:
                priority = priorities[number] = draw.random()
            if priority > best:
                best, at = priority, position
        if draw.random() < self._rate:
            self._lowest -= 1.0
            priorities[ready[at]] = self._lowest
        return at

"""Making a failing run smaller: fewer draws, so fewer operations, and fewer decisions on the order.

Each attempt runs the scenario again; it counts if the run fails in the same way and is smaller. The
idea to reduce the list of choices instead of what was made of them is Hypothesis's (MacIver,
Donaldson: Test-Case Reduction via Test-Case Generation, ECOOP 2020); parts of the list are left out
as in delta debugging (Zeller, Hildebrandt, 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .decisions import Recorded

__all__ = ["Reduction"]

_SINGLE = 100
"""Up to which choice single picks are tried, one after the other."""


class Reduction:
    """Makes one failing run smaller.

    Args:
        found: A run that fails.
        still_fails: Runs it, and returns what was decided in it if it fails in the same way.
        attempts: How many runs it may take.
        over: Returns whether its time is over.
    """

    def __init__(
        self,
        found: Recorded,
        still_fails: Callable[[Recorded], Recorded | None],
        attempts: int,
        over: Callable[[], bool],
    ) -> None:
        self.best = found
        self._still_fails, self._attempts, self._over = still_fails, attempts, over
        self._tried = {str(found)}

    def run(self) -> Recorded:
        """Return the smallest run found that fails."""
        before = None
        while before is not self.best and self._attempts:
            before = self.best
            self._try(self.best.draws, {})
            self._leave_out_picks()
            self._leave_out_draws()
            self._lower()
            self._try_single_picks()
        return self.best

    def _try(self, draws: Sequence[int], picks: dict[int, int]) -> bool:
        smaller = Recorded(self.best.number, draws, picks)
        text = str(smaller)
        if text in self._tried or not self._attempts or self._over():
            return False
        self._attempts -= 1
        self._tried.add(text)
        ran = self._still_fails(smaller)
        if ran is None or ran.size >= self.best.size:
            return False
        self.best = ran
        return True

    def _leave_out_picks(self) -> None:
        # From the end: what was decided before keeps its meaning.
        for size in _halves(len(self.best.picks)):
            end = len(self.best.picks)
            while end > 0:
                choices = sorted(self.best.picks)
                left = set(choices[max(0, end - size) : end])
                picks = {c: p for c, p in self.best.picks.items() if c not in left}
                if not self._try(self.best.draws, picks) and size == 1:
                    # Without it there may be one choice more or fewer before those that follow.
                    (gone,) = left
                    for shift in (-1, 1):
                        moved = {c + shift * (c > gone): p for c, p in picks.items()}
                        if self._try(self.best.draws, moved):
                            break
                end = min(end - size, len(self.best.picks))

    def _leave_out_draws(self) -> None:
        for size in _halves(len(self.best.draws)):
            end = len(self.best.draws)
            while end > 0:
                draws = self.best.draws
                self._try(draws[: max(0, end - size)] + draws[end:], self.best.picks)
                end = min(end - size, len(self.best.draws))

    def _try_single_picks(self) -> None:
        """Look for one pick that does what several do: many races need no more."""
        if len(self.best.picks) > 1:
            for choice in range(1, min(max(self.best.picks), _SINGLE) + 1):
                if any(self._try(self.best.draws, {choice: pick}) for pick in (1, 2)):
                    return

    def _lower(self) -> None:
        for at in range(len(self.best.draws)):
            for lower in (0, 1, -1):
                draws = self.best.draws
                if at < len(draws):
                    value = draws[at] + lower if lower < 0 else lower
                    if 0 <= value < draws[at]:
                        self._try((*draws[:at], value, *draws[at + 1 :]), self.best.picks)
        for choice, pick in sorted(self.best.picks.items()):
            if pick > 1 and choice in self.best.picks:
                self._try(self.best.draws, self.best.picks | {choice: 1})


def _halves(count: int) -> Iterator[int]:
    while count:
        yield count
        count //= 2

"""Timing as ratios: contenders take turns in one process, and each round is compared with itself.

A machine is never quiet: its clock and the load from other processes change from second to second.
So contenders run in short batches, interleaved in an order that changes every round. A ratio is
computed within a round. Reported are the median ratio and the ratio of the two fastest batches; if
the two differ much, the machine was too busy for a reliable result.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

CALLS_A_TURN = 10
"""The number of calls in the body of the timed loop, so that the loop itself costs nothing."""

Batch = Callable[[int], Awaitable[int]]
"""Makes `n * CALLS_A_TURN` calls and returns their time in ns."""


class Timings:
    """Nanoseconds a call, round by round."""

    def __init__(self, rounds: dict[str, list[float]]) -> None:
        self._rounds = rounds

    @property
    def names(self) -> list[str]:
        """The names of the contenders."""
        return list(self._rounds)

    def median(self, name: str) -> float:
        """Return the median time of a call, in ns."""
        return statistics.median(self._rounds[name])

    def ratio(self, name: str, base: str) -> float:
        """Return the median over the rounds of `name` by `base`."""
        pairs = zip(self._rounds[name], self._rounds[base], strict=True)
        return statistics.median(time / other for time, other in pairs)

    def ratio_of_fastest(self, name: str, base: str) -> float:
        """Return the fastest batch of `name` by the fastest of `base`."""
        return min(self._rounds[name]) / min(self._rounds[base])

    def fastest(self, name: str) -> float:
        """Return the time of a call in the fastest batch, in ns."""
        return min(self._rounds[name])

    def difference(self, name: str, base: str) -> float:
        """Return the median over the rounds of `name` less `base`, in ns."""
        pairs = zip(self._rounds[name], self._rounds[base], strict=True)
        return statistics.median(time - other for time, other in pairs)


def batch(statement: str, **names: Any) -> Batch:
    """Make a batch of a statement (`await call(1)`) with a code object of its own.

    Sharing one would let the interpreter specialise it for the first contender and not for the
    others. A `#` in the statement stands for the number of the call in the loop's body.
    """
    body = "\n".join("        " + statement.replace("#", str(i)) for i in range(CALLS_A_TURN))
    source = (
        f"def make({', '.join(names)}):\n"
        "  async def batch(n):\n"
        "    start = clock()\n"
        f"    for _ in repeat(None, n):\n{body}\n"
        "    return clock() - start\n"
        "  return batch\n"
    )
    scope: dict[str, Any] = {"clock": time.perf_counter_ns, "repeat": itertools.repeat}
    exec(compile(source, f"<{statement}>", "exec"), scope)
    made: Batch = scope["make"](**names)
    return made


async def compare(
    make: Callable[[], Awaitable[dict[str, Batch]]],
    *,
    seconds: float,
    batch_ns: int = 400_000,
    lives: int = 4,
    least: int = 4,
) -> Timings:
    """Run contenders by turns for so many seconds.

    Args:
        make: Sets the contenders up and returns their batches by name.
        seconds: How long in all, setting up not counted.
        batch_ns: How long one batch should take.
        lives: How often everything is set up again: where objects are in memory can change the
            time of a short call by a fifth, and stays the same until the next setup.
        least: The least number of rounds in a life, whatever they take.
    """
    rounds: dict[str, list[float]] = {}
    shuffle = random.Random(0).shuffle
    for _ in range(lives):
        contenders = await make()
        turns = {name: await _calibrate(run, batch_ns) for name, run in contenders.items()}
        order = list(contenders)
        rounds = rounds or {name: [] for name in order}
        done = 0
        with quiet():
            end = time.perf_counter() + seconds / lives
            while done < least or time.perf_counter() < end:
                shuffle(order)
                for name in order:
                    took = await contenders[name](turns[name])
                    rounds[name].append(took / (turns[name] * CALLS_A_TURN))
                done += 1
                if done % 50 == 0:
                    gc.collect()
    return Timings(rounds)


async def take_turns(
    contenders: dict[str, tuple[Callable[[int], Awaitable[object]], int]],
    *,
    seconds: float,
    least: int = 5,
) -> Timings:
    """Let contenders do things that take long or wait, by turns; the timings are of one each.

    Args:
        contenders: Each does as many as it is asked to; and how many that is in a turn.
        seconds: How long in all.
        least: The least number of rounds, whatever they take.
    """
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    order, shuffle = list(contenders), random.Random(0).shuffle
    for run, count in contenders.values():
        await run(count)
    done = 0
    with quiet():
        end = time.perf_counter() + seconds
        while done < least or time.perf_counter() < end:
            shuffle(order)
            for name in order:
                run, count = contenders[name]
                start = time.perf_counter_ns()
                await run(count)
                rounds[name].append((time.perf_counter_ns() - start) / count)
            done += 1
    return Timings(rounds)


async def _calibrate(run: Batch, batch_ns: int) -> int:
    turns = 1
    while (took := await run(turns)) < batch_ns / 4 and turns < 1_000_000:
        turns *= 2
    return max(1, round(turns * batch_ns / max(took, 1)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the garbage collector out of the timing."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Pin this process to its last core meanwhile, if the system can."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def never_hot() -> Iterator[None]:
    """Let no plan be compiled meanwhile."""
    from veko._bus import plans

    before = plans.HOT
    plans.HOT = 10**9  # type: ignore[misc]
    try:
        yield
    finally:
        plans.HOT = before  # type: ignore[misc]

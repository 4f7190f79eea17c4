"""Finds the few of many whose presence makes something fail: delta debugging by binary search.

Each search finds the shortest beginning of the list that still fails together with what was found
before; its last member is one of those that are sought. So `k` among `n` cost about
`k * (log2(n) + 1)` probes, where ddmin (Zeller and Hildebrandt, 2002) takes up to `n ** 2`: a pair
among 64 takes 17. Members that prove superfluous are dropped at the end, as ddmin does.

Promise: what is returned was seen to fail, and without any one of its members it was seen to pass,
whether or not failing is monotone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from .files import RecordingError

__all__ = ["Culprits", "SearchError", "find_culprits"]

Fails = Callable[[Sequence[str]], Awaitable[bool]]
_MOST: Final = 200


class SearchError(RecordingError):
    """There is nothing to find: it always fails, never fails, or sometimes."""


class Culprits(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        names: The smallest set that fails.
        probes: How many sets were tried.
    """

    names: list[str]
    probes: int


async def find_culprits(
    names: Sequence[str], fails: Fails, *, most: int = _MOST, known: bool = False
) -> Culprits:
    """Find the smallest set that makes something fail.

    Args:
        names: All that may be at fault.
        fails: Returns whether a set of them fails.
        most: The highest number of probes.
        known: Whether it is known that all fail and none passes, so that this is not tried.

    Raises:
        SearchError: All together pass, none of them fail too, one set both failed and passed, or
            there were too many probes.
    """
    probe = _Probes(names, fails, most)
    if not known:
        if not await probe.fails(names):
            raise SearchError(
                "it does not fail with all plugins on", remedy="So there is nothing to find."
            )
        if await probe.fails(()):
            raise SearchError(
                "it fails without any plugin too",
                remedy="So the cause is not one of them; look at what it runs.",
            )
    else:
        probe.known = {frozenset(names): True, frozenset(): False}
    found: list[str] = []
    candidates = list(names)
    while not await probe.fails(found):
        low, high = 0, len(candidates)
        while high - low > 1:
            middle = (low + high) // 2
            if await probe.fails([*found, *candidates[:middle]]):
                high = middle
            else:
                low = middle
        if not candidates:
            raise _flaky()
        found.append(candidates[high - 1])
        del candidates[high - 1 :]
    for name in tuple(found):
        rest = [one for one in found if one != name]
        if rest and await probe.fails(rest):
            found = rest
    if len(found) < len(names) and not await probe.again(found):
        raise _flaky()
    found.sort(key=list(names).index)
    return Culprits(found, probe.count)


def _flaky() -> SearchError:
    return SearchError(
        "it is flaky: the same plugins once made it fail and once did not",
        remedy="Give --repeat 5, so that a set counts as failing if one of 5 runs fails.",
    )


class _Probes:
    """Tries sets, each once."""

    def __init__(self, names: Sequence[str], fails: Fails, most: int) -> None:
        self._names = list(names)
        self._fails = fails
        self._most = most
        self.known: dict[frozenset[str], bool] = {}
        self.count = 0

    async def fails(self, chosen: Sequence[str]) -> bool:
        key = frozenset(chosen)
        if key not in self.known:
            self.known[key] = await self.again(chosen)
        return self.known[key]

    async def again(self, chosen: Sequence[str]) -> bool:
        if self.count >= self._most:
            raise SearchError(f"nothing was found within {self._most} probes")
        self.count += 1
        return await self._fails([name for name in self._names if name in chosen])

"""Refusals: routes that are out of service because a hook on `route:create` refused them.

A route that a plugin registers now is refused together with all that it registers. One that is
live already is not anybody's mistake at that moment: a guard came later, or changed its mind. It
must not stay open, and the guard must go live, so the route alone leaves the table (404) until the
hooks let it in again.

Cost: nothing while no route is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from veko import HookTimeout

from .batches import Batches
from .route import Route

__all__ = ["REFUSED", "Refusal", "Refusals"]

REFUSED = "route:refused"
"""The view that holds the refused routes by batch."""


class Refusal(msgspec.Struct, frozen=True):
    """A route that is out of service.

    Attributes:
        route: The route as its plugin registered it.
        reason: What the hook raised, as text.
    """

    route: Route
    reason: str


class Refusals:
    """The routes that one acceptance leaves out.

    Args:
        before: Those that were out of service before, by batch.

    Attributes:
        new: Those that were not before, each with the error.
        timeout: The error of a hook that exceeded its time limit: the remaining routes are not
            shown to it, or one that hangs would be waited for once for each route.
    """

    def __init__(self, before: Mapping[int, tuple[Refusal, ...]]) -> None:
        self._before = before
        self._batch = 0
        self._by_batch: dict[int, list[Refusal]] = {n: list(held) for n, held in before.items()}
        self.new: list[tuple[Route, Exception]] = []
        self.timeout: HookTimeout | None = None

    def open(self, batch: int, *, keep: bool = False) -> None:
        """Begin to look at a batch again.

        Args:
            batch: The batch.
            keep: Whether what is left out of it stays so.
        """
        self._batch = batch
        if not keep:
            self._by_batch.pop(batch, None)

    def add(self, route: Route, error: Exception) -> None:
        """Leave a route of the batch out.

        Args:
            route: The route.
            error: What refused it.
        """
        if isinstance(error, HookTimeout):
            self.timeout = error
        reason = f"{type(error).__name__}: {error}"
        self._by_batch.setdefault(self._batch, []).append(Refusal(route, reason))
        known = {(one.route.method, one.route.path) for one in self._before.get(self._batch, ())}
        if (route.method, route.path) not in known:
            self.new.append((route, error))

    def of(self, plugins: Iterable[Batches]) -> Mapping[int, tuple[Refusal, ...]]:
        """Return what is out of service now.

        Args:
            plugins: The routes of all plugins that are left.
        """
        if not self._by_batch:
            return {}
        left = {number for batches in plugins for number, _ in batches.rows.values()}
        return {number: tuple(held) for number, held in self._by_batch.items() if number in left}

"""Batches: which live routes were made of which raw ones, plugin by plugin.

Routes that are registered together pass the hook `route:load` together, now and whenever the hooks
change, so the batch of each is kept. Removing one route costs a copy of a dict of its plugin's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from veko.extend import Entry

from .exchange import Target
from .route import Route

__all__ = ["Batches"]


class Batches:
    """The routes of one plugin. Once its registry is live it never changes: `copy` it first.

    Attributes:
        rows: For each raw route, in order, its batch and its live route; `None` for the live route
            if the hooks made other routes of the batch than one of each.
    """

    __slots__ = ("_others", "rows")

    def __init__(self) -> None:
        self.rows: dict[Entry, tuple[int, Target | None]] = {}
        self._others: dict[int, Sequence[Target]] = {}

    def copy(self) -> Batches:
        """Return a copy to be changed."""
        twin = Batches()
        twin.rows, twin._others = self.rows.copy(), self._others.copy()
        return twin

    def remove(self, entries: Iterable[Entry]) -> tuple[list[Target], set[int]]:
        """Remove raw routes.

        Returns:
            The live routes that go with them, and the batches whose other routes change with that.
        """
        dropped: list[Target] = []
        again: set[int] = set()
        for entry in entries:
            batch, target = self.rows.pop(entry, (0, None))
            if target is not None:
                dropped.append(target)
            elif batch in self._others:
                again.add(batch)
        return dropped, again

    def entries(self, batches: Collection[int] | None = None) -> dict[int, list[Entry]]:
        """Return the raw routes by batch.

        Args:
            batches: The batches, also those of which nothing is left; `None` for all.
        """
        found: dict[int, list[Entry]] = {batch: [] for batch in batches or ()}
        for entry, (batch, _) in self.rows.items() if batches is None or batches else ():
            if batches is None:
                found.setdefault(batch, []).append(entry)
            elif batch in found:
                found[batch].append(entry)
        return found

    def targets(self, batch: int, entries: Iterable[Entry]) -> list[Target]:
        """Return the live routes of a batch, in order.

        Args:
            batch: The batch.
            entries: Its raw routes.
        """
        others = self._others.get(batch)
        if others is not None:
            return list(others)
        rows = self.rows
        return [target for entry in entries if (target := rows[entry][1]) is not None]

    def put(self, batch: int, entries: Sequence[Entry], targets: Sequence[Target]) -> None:
        """Set the live routes of a batch.

        Args:
            batch: The batch, a number from 1.
            entries: Its raw routes.
            targets: Its live routes.
        """
        self._others.pop(batch, None)
        exact = len(entries) == len(targets) and all(
            _alike(entry.value, target.route)
            for entry, target in zip(entries, targets, strict=True)
        )
        if exact:
            for entry, target in zip(entries, targets, strict=True):
                self.rows[entry] = batch, target
        else:
            for entry in entries:
                self.rows[entry] = batch, None
            if entries:
                self._others[batch] = targets


def _alike(raw: Route, live: Route) -> bool:
    """Tell whether a live route is made of that raw one."""
    return raw.method == live.method and raw.handler is live.handler

"""The registry: everything that is live, as one immutable value.

A change makes the next registry, which shares what did not change, and swaps one reference.
Nobody ever sees half of it. The order of an entry among its equals is (priority, arrival of its
owner, index within its owner) and never changes, so what is removed and added again returns to
where it was. Making the next one costs what changes, however much there is: see `tables`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from ..errors import VekoError
from .events import matches
from .owners import Owner, name_of
from .tables import Buckets

__all__ = ["Entry", "Registry", "Table", "by_order"]

HOOK, PATTERN, EVENT, KIND = "hook", "pattern", "event", "kind"
INTERCEPTOR, PROBE, STEP = "interceptor", "probe", "step"

_Order = tuple[float, int, int]


class Entry:
    """One registration, compared by identity.

    Args:
        kind: `"hook"`, `"route"`, `"service"`, …; the kinds are open.
        key: What it is found by: the event, the path, the name.
        value: What is registered.
        owner: Its owner; `None` for the host.
        priority: The higher comes first among entries of one key.
        order: Its order among entries of one priority: the arrival of its owner, and its index
            among what the owner registers.

    Attributes:
        kind: As given.
        key: As given.
        value: As given.
        owner: As given.
        priority: As given.
        order: What entries are sorted by: (-priority, arrival, index).
    """

    __slots__ = ("key", "kind", "order", "owner", "priority", "value")

    def __init__(
        self,
        kind: str,
        key: Hashable,
        value: Any,
        owner: Owner | str | None = None,
        priority: float = 0,
        order: tuple[int, int] = (0, 0),
    ) -> None:
        self.kind = kind
        self.key = key
        self.value = value
        self.owner: Any = owner  # readers of a kind know which type of owner registers it
        self.priority = priority
        try:
            self.order: _Order = (-priority, *order)
            hash((kind, key))
        except TypeError as error:
            raise VekoError(
                f"{kind} {key!r} cannot be registered with priority {priority!r}: {error}",
                remedy="Pass a number as its priority; what it is found by must be hashable.",
            ) from error

    def same(self, other: Entry) -> bool:
        """Tell whether another entry is this one, or a copy of it with another value."""
        return self.order == other.order and self.owner is other.owner

    def __repr__(self) -> str:
        return f"<Entry {self.kind} {self.key!r} of {name_of(self.owner)}>"


def by_order(entry: Entry) -> _Order:
    """Return what entries are sorted by."""
    return entry.order


Table = dict[Hashable, tuple[Entry, ...]] | Buckets[tuple[Entry, ...]]
"""The entries of one kind by key, those of a key in order."""


def _arrival(same: tuple[Hashable, tuple[Entry, ...]]) -> tuple[float, ...]:
    return same[1][0].order[1:]


class Registry:
    """Everything that is live at one moment. Nothing in it ever changes.

    Attributes:
        version: Goes up by one with each swap.
    """

    __slots__ = ("_tables", "_views", "version")

    def __init__(self, version: int, tables: dict[str, Table], views: dict[str, Any]) -> None:
        self.version = version
        self._tables = tables
        self._views = views

    def get(self, kind: str, key: Hashable) -> Entry | None:
        """Return the first entry of that kind and key, or `None`."""
        found = self._tables.get(kind, {}).get(key)
        return found[0] if found else None

    def all(self, kind: str, key: Hashable) -> tuple[Entry, ...]:
        """Return all entries of that kind and key, in order."""
        return self._tables.get(kind, {}).get(key, ())

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """Return all entries of a kind, in order. Sorts at each call."""
        found = (entry for same in self._tables.get(kind, {}).values() for entry in same)
        return tuple(sorted(found, key=by_order))

    def keys(self, kind: str) -> Sequence[Hashable]:
        """Return the keys of a kind that have entries, in order of arrival."""
        table = self._tables.get(kind, {})
        if isinstance(table, dict):
            return tuple(table)
        return tuple(key for key, _ in sorted(table.items(), key=_arrival))

    def view(self, kind: str) -> Any:
        """Return what the kind's `accept` derived from its entries, or `None`."""
        return self._views.get(kind)

    def reaches(self, owner: object) -> bool:
        """Tell whether work that holds this registry may call what an owner has registered in it.

        Costs a look at every entry of the kinds that such work calls; see `Kind.pinned`.
        """
        kinds = {kind: same[0].value for kind, same in self._tables.get(KIND, {}).items()}
        for name, table in self._tables.items():
            kind = kinds.get(name)
            if name in (EVENT, KIND) or (kind is not None and not kind.pinned):
                continue
            if any(entry.owner is owner for same in table.values() for entry in same):
                return True
        return False

    def hooks(self, event: str) -> tuple[Entry, ...]:
        """Return the hook entries of an event, those of patterns included, in order."""
        patterns = self._tables.get(PATTERN, {}).items()
        found = [e for pattern, same in patterns if matches(str(pattern), event) for e in same]
        return tuple(sorted((*self.all(HOOK, event), *found), key=by_order))

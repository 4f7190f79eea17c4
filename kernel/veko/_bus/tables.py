"""The table of a kind in a registry: its entries by key, quickly copied however many there are.

A registry never changes, so a change copies the tables that it changes. A dict of some thousand
keys takes longer to copy than all the rest of a change; past `SMALL` keys a table is therefore a
row of small dicts, and a copy shares those that do not change.
"""

from __future__ import annotations

from collections.abc import Hashable, ItemsView, Iterable, Iterator
from itertools import chain
from typing import Final, Generic, TypeVar, overload

__all__ = ["Buckets", "shaped"]

D = TypeVar("D")
V = TypeVar("V")
SMALL: Final = 1000
FEW, MANY = 64, 256
"""How many keys a bucket has at first, and how many at most on average."""


class Buckets(Generic[V]):
    """A table of many keys, in buckets by their hash; in no order.

    Args:
        items: The keys, and the value of each.
        count: How many keys there are.
    """

    __slots__ = ("_buckets", "_count", "_mask", "_own")

    def __init__(self, items: Iterable[tuple[Hashable, V]], count: int) -> None:
        size = 1 << (count // FEW).bit_length()
        self._count = count
        self._mask = size - 1
        self._own = bytearray(b"\1") * size  # whether a bucket is in no other table
        self._buckets: list[dict[Hashable, V]] = [{} for _ in range(size)]
        for key, value in items:
            self._buckets[hash(key) & self._mask][key] = value

    @property
    def room(self) -> int:
        """How many keys it is made for."""
        return MANY * len(self._buckets)

    def copy(self) -> Buckets[V]:
        """Return a copy; the two share each bucket until one of them changes it."""
        copy: Buckets[V] = object.__new__(Buckets)
        copy._count = self._count
        copy._mask = self._mask
        copy._buckets = self._buckets.copy()
        copy._own = bytearray(len(self._buckets))
        self._own = bytearray(len(self._buckets))
        return copy

    @overload
    def get(self, key: Hashable) -> V | None: ...
    @overload
    def get(self, key: Hashable, default: D) -> V | D: ...
    def get(self, key: Hashable, default: object = None) -> object:
        """Return the value of a key, or the default."""
        return self._buckets[hash(key) & self._mask].get(key, default)

    def __getitem__(self, key: Hashable) -> V:
        return self._buckets[hash(key) & self._mask][key]

    def __setitem__(self, key: Hashable, value: V) -> None:
        bucket = self._changed(key)
        self._count += key not in bucket
        bucket[key] = value

    def __delitem__(self, key: Hashable) -> None:
        del self._changed(key)[key]
        self._count -= 1

    def _changed(self, key: Hashable) -> dict[Hashable, V]:
        """Return the bucket of a key, to be changed."""
        index = hash(key) & self._mask
        if not self._own[index]:
            self._own[index] = 1
            self._buckets[index] = self._buckets[index].copy()
        return self._buckets[index]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Hashable]:
        return chain.from_iterable(self._buckets)

    def values(self) -> Iterator[V]:
        """Return the value of each key."""
        return chain.from_iterable(map(dict.values, self._buckets))

    def items(self) -> Iterator[tuple[Hashable, V]]:
        """Return each key with its value."""
        views: Iterator[ItemsView[Hashable, V]] = map(dict.items, self._buckets)
        return chain.from_iterable(views)


def shaped(table: dict[Hashable, V] | Buckets[V]) -> dict[Hashable, V] | Buckets[V]:
    """Return a table as one of its size is kept: itself, or once it has grown, another."""
    count = len(table)
    if count > SMALL and (isinstance(table, dict) or count > table.room):
        return Buckets(table.items(), count)
    return table

"""The draft: the next registry while it is made, and the kinds that accept it or refuse it."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Any

import msgspec

from ..errors import ConflictError
from .events import matches
from .owners import name_of
from .registry import (
    EVENT,
    HOOK,
    INTERCEPTOR,
    KIND,
    PATTERN,
    PROBE,
    Entry,
    Registry,
    Table,
    by_order,
)  # fmt: skip
from .tables import shaped
from .turns import Turns

__all__ = ["Draft", "Kind"]


class Kind(msgspec.Struct, frozen=True):
    """How entries of one kind join the registry.

    Attributes:
        name: The kind's name.
        unique: One entry per key; a second one is refused, and the message names the owner of the
            first.
        accept: Called with the draft when a transaction adds or removes entries of this kind;
            it may look, replace values, set the kind's view, or raise to refuse the whole
            transaction. It may run more than once for one transaction.
        retest: Events whose hooks decide in `accept`; it also runs when the subscribers of one of
            them change.
        pinned: Whether any work that holds an older registry may still call entries of this kind.
            Otherwise only work does whose pin names their owner: looking one up is by what is live.
    """

    name: str
    unique: bool = False
    accept: Callable[[Draft], Awaitable[None]] | None = None
    retest: tuple[str, ...] = ()
    pinned: bool = True


class Draft:
    """The next registry while it is being made and accepted.

    Args:
        before: The registry that it starts from.
        emit: Emits strictly with the hooks of a draft: what `emit` here does.
        changed: Events whose subscribers have already changed without acceptance.
        slices: Whether its turns let other tasks run.

    Attributes:
        before: The registry that it starts from.
        after: The registry that it makes.
        added: Entries that it adds, of all kinds, in order of arrival.
        removed: Entries that it removes.
        accepted: Whether every kind concerned has accepted it.
        posts: Events with their arguments, to be emitted soon after it has gone live.
        plans: The plans of its hooks, once it has emitted; kept here by the bus.
    """

    def __init__(
        self,
        before: Registry,
        emit: Callable[..., Awaitable[Any]],
        changed: frozenset[str] = frozenset(),
        slices: bool = True,
    ) -> None:
        self.before = before
        self.after = Registry(before.version + 1, dict(before._tables), dict(before._views))
        self.added: list[Entry] = []
        self.removed: list[Entry] = []
        self.accepted = False
        self.posts: list[tuple[str, *tuple[object, ...]]] = []
        self._slices = slices
        self._turns: Turns | None = None
        self.plans: object = None
        self._emit = emit
        self._changed = changed
        self._own: set[str] = set()
        self._deciding: tuple[frozenset[str], list[str]] | None = None

    @property
    def turns(self) -> Turns:
        """Its turns: `if draft.turns.due: await draft.turns.pause()` within a long `accept`."""
        if self._turns is None:
            self._turns = Turns(slices=self._slices)
        return self._turns

    def touches(self, kind: str) -> bool:
        """Tell whether entries of a kind were added, removed or replaced."""
        return kind in self._own

    def _table(self, kind: str) -> Table:
        """Return the table of a kind to be changed: copied from the registry before, once."""
        if kind not in self._own:
            self._own.add(kind)
            # `copy` and not `dict()`, which is slow where something was deleted before.
            self.after._tables[kind] = self.before._tables.get(kind, {}).copy()
        return self.after._tables[kind]

    def add(self, *entries: Entry) -> None:
        """Add entries.

        Raises:
            ConflictError: The kind is unique and the key is taken, or an event of that name is
                declared otherwise.
        """
        for (kind, key), coming in _by_key(entries):
            table = self._table(kind)
            same = table.get(key, ())
            for entry in coming if same else coming[1:]:
                self._check(entry, same[0] if same else coming[0])
            if len(coming) == 1:
                index = bisect.bisect_right(same, coming[0].order, key=by_order)
                # Not `(*same, …)`: that takes twice the time, past a thousand handlers.
                table[key] = same[:index] + (coming[0],) + same[index:]  # noqa: RUF005
            else:
                coming.sort(key=by_order)
                table[key] = (*same, *coming)
                if same and coming[0].order < same[-1].order:
                    table[key] = tuple(sorted(table[key], key=by_order))
        for kind in {entry.kind for entry in entries}:
            self.after._tables[kind] = shaped(self.after._tables[kind])
        self.added += entries
        self.plans = self._deciding = None

    def _check(self, entry: Entry, held: Entry) -> None:
        """Raise if an entry cannot join another one of its kind and key."""
        if entry.kind == EVENT:
            conflicts = held.value != entry.value
        else:
            kind = self.after.get(KIND, entry.kind)
            conflicts = entry.kind == KIND or (kind is not None and kind.value.unique)
        if conflicts:
            raise ConflictError(
                f"{entry.kind} {entry.key!r} is taken by {name_of(held.owner) or 'the host'}",
                plugin=name_of(entry.owner),
                remedy="Rename it here or there, or unload the other one.",
            )

    def remove(self, *entries: Entry) -> None:
        """Remove entries; nothing happens for those that are not there."""
        for (kind, key), leaving in _by_key(entries):
            table = self._table(kind)
            same = table.get(key, ())
            left, gone = _without(same, leaving)
            if left:
                table[key] = left
            elif gone:
                del table[key]
            for entry in gone:
                if entry in self.added:
                    self.added.remove(entry)
                else:
                    self.removed.append(entry)
        self.plans = self._deciding = None

    def replace(self, entry: Entry, value: Any) -> Entry:
        """Let an entry go live with another value.

        The entry itself keeps the value that it was registered with, so that it can be accepted
        again from that later; the registry holds a copy.
        """
        copy = Entry(entry.kind, entry.key, value, entry.owner, entry.priority, entry.order[1:])
        table = self._table(entry.kind)
        table[entry.key] = tuple(copy if e.same(entry) else e for e in table[entry.key])
        return copy

    def get(self, kind: str, key: Hashable) -> Entry | None:
        """Return the first entry of that kind and key as it will be, or `None`."""
        return self.after.get(kind, key)

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """Return all entries of a kind as they will be, in order."""
        return self.after.entries(kind)

    def view(self, kind: str) -> Any:
        """Return the kind's derived value as it will be."""
        return self.after.view(kind)

    def set_view(self, kind: str, value: Any) -> None:
        """Set the value that goes live beside the entries of a kind (a routing table, say)."""
        self.after._views[kind] = value

    @property
    def changed_hooks(self) -> frozenset[str]:
        """The events and patterns whose subscribers change."""
        return self._changed | self._keys(HOOK, PATTERN)

    def _keys(self, *kinds: str) -> set[str]:
        """Return the keys of what changes of some kinds; thousands of others are not looked at."""
        if self._own.isdisjoint(kinds):
            return set()
        return {str(e.key) for e in (*self.added, *self.removed) if e.kind in kinds}

    @property
    def changed_plans(self) -> frozenset[str] | None:
        """The events and patterns whose plans change; `None` for all."""
        if self._keys(INTERCEPTOR, PROBE):
            return None
        return self._changed | self._keys(HOOK, PATTERN, EVENT)

    def hooks_changed(self, *events: str) -> bool:
        """Tell whether the hooks of one of these events change, those that only observe apart."""
        if self._deciding is None:
            names = self._changed | {
                str(entry.key)
                for entry in (*self.added, *self.removed)
                if entry.kind in (HOOK, PATTERN) and not entry.value.observes
            }
            self._deciding = names, [name for name in names if "*" in name]
        names, patterns = self._deciding
        return any(e in names or any(matches(one, e) for one in patterns) for e in events)

    async def emit(self, event: str, value: Any = None, *args: Any) -> Any:
        """Emit strictly, with the hooks as they will be: what a hook raises refuses the draft."""
        return await self._emit(self, event, value, *args)

    def post(self, event: str, *args: object) -> None:
        """Emit an event soon after this draft has gone live; never if it does not."""
        self.posts.append((event, *args))

    def concerned(self) -> list[Kind]:
        """Return the kinds that must accept it; if there are none, it may be published at once."""
        touched = {entry.kind for entry in (*self.added, *self.removed)}
        kinds: list[Kind] = [entry.value for entry in self.after.entries(KIND)]
        return [
            k for k in kinds if k.accept and (k.name in touched or self.hooks_changed(*k.retest))
        ]

    async def accept(self) -> None:
        """Let every kind that this draft touches accept it.

        Raises:
            Exception: Whatever an `accept` raised; nothing has happened then.
        """
        for kind in self.concerned():
            assert kind.accept is not None
            await kind.accept(self)
        self.accepted = True


def _by_key(entries: Sequence[Entry]) -> Iterable[tuple[tuple[str, Hashable], list[Entry]]]:
    """Return entries by kind and key, so that those of one key are merged in one step."""
    if len(entries) == 1:
        (one,) = entries
        return [((one.kind, one.key), [one])]
    found: dict[tuple[str, Hashable], list[Entry]] = {}
    for entry in entries:
        found.setdefault((entry.kind, entry.key), []).append(entry)
    return found.items()


def _without(
    same: tuple[Entry, ...], leaving: Sequence[Entry]
) -> tuple[tuple[Entry, ...], list[Entry]]:
    """Return the entries of a key without some, and those of the some that were there."""
    gone: list[Entry] = []
    indices: list[int] = []
    for entry in leaving:
        order, owner = entry.order, entry.owner
        index = bisect.bisect_left(same, order, key=by_order)
        while index < len(same) and same[index].order == order:
            if same[index].owner is owner:  # `Entry.same` in place of a call
                indices.append(index)
                gone.append(entry)
                break
            index += 1
    if len(indices) == 1:
        (index,) = indices
        return same[:index] + same[index + 1 :], gone
    staying = bytearray(b"\1") * len(same)
    for index in indices:
        staying[index] = 0
    return tuple(itertools.compress(same, staying)), gone

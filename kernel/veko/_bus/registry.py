"""The registry: everything that is live, as one immutable value.

A change makes the next registry, which shares what did not change, and swaps one reference.
Nobody ever sees half of it. An entry's place among its equals is (priority, arrival of its
owner, place within its owner) and never changes, so what comes back comes back where it was.
Making the next one copies the tables that change, some microseconds a thousand keys.
"""

from __future__ import annotations

import bisect
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Protocol

import msgspec

from ..errors import ConflictError
from .events import matches

__all__ = ["Draft", "Entry", "Kind", "Owner", "Registry"]

HOOK, PATTERN, EVENT, KIND = "hook", "pattern", "event", "kind"
INTERCEPTOR, PROBE, STEP = "interceptor", "probe", "step"

_Order = tuple[float, int, int]


class Owner(Protocol):
    """Whose an entry is: a generation of a plugin, or a name of the host's choosing."""

    @property
    def name(self) -> str: ...


class Entry:
    """One thing that is registered, by identity.

    Attributes:
        kind: `"hook"`, `"route"`, `"service"`, …; the kinds are open.
        key: What it is found by: the event, the path, the name.
        value: What is registered.
        owner: Whose it is; `None` for the host's own.
        priority: The higher comes first among its equals.
    """

    __slots__ = ("key", "kind", "order", "owner", "priority", "value")

    def __init__(
        self,
        kind: str,
        key: Hashable,
        value: Any,
        owner: Any = None,
        priority: float = 0,
        place: tuple[int, int] = (0, 0),
    ) -> None:
        self.kind = kind
        self.key = key
        self.value = value
        self.owner = owner
        self.priority = priority
        self.order: _Order = (-priority, *place)

    def same(self, other: Entry) -> bool:
        """Tell whether another entry is this one, or a copy of it with another value."""
        return self.order == other.order and self.owner is other.owner

    def __repr__(self) -> str:
        return f"<Entry {self.kind} {self.key!r} of {getattr(self.owner, 'name', self.owner)}>"


def _by_order(entry: Entry) -> _Order:
    return entry.order


class Kind(msgspec.Struct, frozen=True):
    """How entries of one kind join the registry.

    Attributes:
        name: The kind's name.
        unique: One entry a key; a second one is refused, and the message says who has it.
        accept: Called with the draft when a transaction adds or removes entries of this kind;
            it may look, replace values, set the kind's view, or raise to refuse the whole
            transaction. It may run more than once for one transaction.
        retest: Events whose hooks have a say in acceptance; `accept` also runs when the
            subscribers of one of them change.
    """

    name: str
    unique: bool = False
    accept: Callable[[Draft], Awaitable[None]] | None = None
    retest: tuple[str, ...] = ()


_Table = dict[Hashable, tuple[Entry, ...]]


class Registry:
    """All that is live at one moment. Nothing in it ever changes.

    Attributes:
        version: Counts up by one a swap.
    """

    __slots__ = ("_tables", "_views", "version")

    def __init__(self, version: int, tables: dict[str, _Table], views: dict[str, Any]) -> None:
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
        return tuple(sorted(found, key=_by_order))

    def keys(self, kind: str) -> Sequence[Hashable]:
        """Return the keys of a kind that have entries, in order of arrival."""
        return tuple(self._tables.get(kind, ()))

    def view(self, kind: str) -> Any:
        """Return what the kind's `accept` derived from its entries, or `None`."""
        return self._views.get(kind)

    def hooks(self, event: str) -> tuple[Entry, ...]:
        """Return the hook entries that an event has, patterns included, in order."""
        patterns = self._tables.get(PATTERN, {}).items()
        found = [e for pattern, same in patterns if matches(pattern, event) for e in same]
        return tuple(sorted((*self.all(HOOK, event), *found), key=_by_order))


class Draft:
    """The next registry while it is being made and accepted.

    Args:
        before: The registry that it starts from.
        emit: Emits strictly with the hooks of a draft: what `emit` here does.
        changed: Events whose subscribers have changed before without anybody being asked.

    Attributes:
        before: The registry that it starts from.
        after: The registry that it makes.
        added: Entries that it adds, of all kinds, in order of arrival.
        removed: Entries that it takes away.
        accepted: Whether everybody who has a say was asked.
        posts: Events, with their arguments, that are emitted soon after it has gone live.
        plans: How its hooks run, once somebody has asked; for the bus.
    """

    def __init__(
        self,
        before: Registry,
        emit: Callable[..., Awaitable[Any]],
        changed: frozenset[str] = frozenset(),
    ) -> None:
        self.before = before
        self.after = Registry(before.version + 1, dict(before._tables), dict(before._views))
        self.added: list[Entry] = []
        self.removed: list[Entry] = []
        self.accepted = False
        self.posts: list[tuple[Any, ...]] = []
        self.plans: Any = None
        self._emit = emit
        self._changed = changed
        self._own: set[str] = set()

    def _table(self, kind: str) -> _Table:
        if kind not in self._own:
            self._own.add(kind)
            self.after._tables[kind] = dict(self.before._tables.get(kind, {}))
        return self.after._tables[kind]

    def add(self, entry: Entry) -> None:
        """Add an entry.

        Raises:
            ConflictError: The kind is unique and the key is taken, or an event of that name is
                declared otherwise.
        """
        table = self._table(entry.kind)
        same = table.get(entry.key, ())
        kind = self.after.get(KIND, entry.kind)
        unique = entry.kind == KIND or (kind is not None and kind.value.unique)
        otherwise = entry.kind == EVENT and any(e.value != entry.value for e in same)
        if same and (unique or otherwise):
            holder = getattr(same[0].owner, "name", same[0].owner) or "the host"
            raise ConflictError(
                f"{entry.kind} {entry.key!r} is taken by {holder}",
                plugin=getattr(entry.owner, "name", None),
                remedy="Rename it here or there, or unload the other one.",
            )
        place = bisect.bisect_right(same, entry.order, key=_by_order)
        table[entry.key] = (*same[:place], entry, *same[place:])
        self.added.append(entry)
        self.plans = None

    def remove(self, entry: Entry) -> None:
        """Take an entry away; one that is not there is no error."""
        table = self._table(entry.kind)
        same = table.get(entry.key, ())
        left = tuple(one for one in same if not one.same(entry))
        if len(left) == len(same):
            return
        if left:
            table[entry.key] = left
        else:
            del table[entry.key]
        if entry in self.added:
            self.added.remove(entry)
        else:
            self.removed.append(entry)
        self.plans = None

    def replace(self, entry: Entry, value: Any) -> Entry:
        """Let an entry go live with another value.

        The entry itself keeps the value that it was registered with, so that it can be accepted
        anew from that later; the registry holds a copy.
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
        """Set what goes live beside the entries of a kind (a routing table, say)."""
        self.after._views[kind] = value

    @property
    def changed_hooks(self) -> frozenset[str]:
        """The events and patterns whose subscribers change."""
        changed = (*self.added, *self.removed)
        return self._changed | {str(e.key) for e in changed if e.kind in (HOOK, PATTERN)}

    def hooks_changed(self, *events: str) -> bool:
        """Tell whether those who have a say in one of these events change in this draft.

        A handler with a true attribute `observes` has none.
        """
        names = self._changed | {
            str(entry.key)
            for entry in (*self.added, *self.removed)
            if entry.kind in (HOOK, PATTERN) and not getattr(entry.value.handler, "observes", False)
        }
        return any(event in names or any(matches(n, event) for n in names) for event in events)

    async def emit(self, event: str, value: Any = None, *args: Any) -> Any:
        """Emit strictly, with the hooks as they will be: what a hook raises refuses the draft."""
        return await self._emit(self, event, value, *args)

    def post(self, event: str, *args: Any) -> None:
        """Emit an event soon after this draft has gone live; never if it does not."""
        self.posts.append((event, *args))

    def concerned(self) -> list[Kind]:
        """Return the kinds that have a say: if there are none, it may be published at once."""
        touched = {entry.kind for entry in (*self.added, *self.removed)}
        kinds: list[Kind] = [entry.value for entry in self.after.entries(KIND)]
        return [
            k for k in kinds if k.accept and (k.name in touched or self.hooks_changed(*k.retest))
        ]

    async def accept(self) -> None:
        """Let every kind that this draft touches say whether it is sound.

        Raises:
            Exception: Whatever an `accept` raised; nothing has happened then.
        """
        for kind in self.concerned():
            assert kind.accept is not None
            await kind.accept(self)
        self.accepted = True

"""The registry: everything that is live, as one immutable value.

A change makes the next registry, which shares what did not change, and swaps one reference.
Nobody ever sees half of it. An entry's place among its equals is (priority, arrival of its
owner, place within its owner) and never changes, so what comes back comes back where it was.
Making the next one copies the tables that change, some microseconds a thousand keys.
"""

from __future__ import annotations

import bisect
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ..errors import ConflictError
from .events import matches

if TYPE_CHECKING:
    from .bus import Bus
    from .pins import Pin
    from .plans import Plans

__all__ = ["Draft", "Entry", "Kind", "Owner", "Registry"]

HOOK, PATTERN, EVENT, KIND = "hook", "pattern", "event", "kind"
WRAP, WRAP_EMISSION, WRAP_STEP = "intercept", "intercept_emission", "intercept_step"
PROBE = "probe"

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

    def __repr__(self) -> str:
        return f"<Entry {self.kind} {self.key!r} of {getattr(self.owner, 'name', self.owner)}>"


def _is(one: Entry, other: Entry) -> bool:
    return one.order == other.order and one.owner is other.owner


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

    __slots__ = ("_tables", "_views", "pins", "plans", "version")

    def __init__(self, version: int, tables: dict[str, _Table], views: dict[str, Any]) -> None:
        self.version = version
        self.pins: set[Pin] = set()
        self.plans: Plans
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

    def hooks(self, event: str) -> Iterator[Entry]:
        """Give the hook entries that an event has, patterns included, in order."""
        table = self._tables.get(HOOK, {})
        found = list(table.get(event, ()))
        for entry in (e for same in self._tables.get(PATTERN, {}).values() for e in same):
            if matches(entry.key, event):
                found.append(entry)
        found.sort(key=_by_order)
        return iter(found)


class Draft:
    """The next registry while it is being made and accepted.

    Attributes:
        before: The registry that it starts from.
        added: Entries that it adds, of all kinds, in order of arrival.
        removed: Entries that it takes away.
        accepted: Whether everybody who has a say was asked.
    """

    def __init__(self, before: Registry, bus: Bus, changed: frozenset[str] = frozenset()) -> None:
        self.before = before
        self.accepted = False
        self.posts: list[tuple[Any, ...]] = []
        self._changed = changed
        self.added: list[Entry] = []
        self.removed: list[Entry] = []
        self._bus = bus
        self._next = Registry(before.version + 1, dict(before._tables), dict(before._views))
        self._own: set[str] = set()
        self._sealed = False

    def _table(self, kind: str) -> _Table:
        if kind not in self._own:
            self._own.add(kind)
            self._next._tables[kind] = dict(self.before._tables.get(kind, {}))
        return self._next._tables[kind]

    def add(self, entry: Entry) -> None:
        """Add an entry.

        Raises:
            ConflictError: The kind is unique and the key is taken, or an event of that name is
                declared otherwise.
        """
        table = self._table(entry.kind)
        same = table.get(entry.key, ())
        kind = self._next.get(KIND, entry.kind)
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
        self._sealed = False

    def remove(self, entry: Entry) -> None:
        """Take an entry away; one that is not there is no error."""
        table = self._table(entry.kind)
        same = table.get(entry.key, ())
        place = bisect.bisect_left(same, entry.order, key=_by_order)
        if place == len(same) or not _is(same[place], entry):
            return
        if len(same) > 1:
            table[entry.key] = (*same[:place], *same[place + 1 :])
        else:
            del table[entry.key]
        if entry in self.added:
            self.added.remove(entry)
        else:
            self.removed.append(entry)
        self._sealed = False

    def replace(self, entry: Entry, value: Any) -> Entry:
        """Let an entry go live with another value.

        The entry itself keeps the value that it was registered with, so that it can be accepted
        anew from that later; the registry holds a copy.
        """
        copy = Entry(entry.kind, entry.key, value, entry.owner, entry.priority, entry.order[1:])
        table = self._table(entry.kind)
        same = table[entry.key]
        table[entry.key] = tuple(copy if _is(e, entry) else e for e in same)
        return copy

    def get(self, kind: str, key: Hashable) -> Entry | None:
        """Return the first entry of that kind and key as it will be, or `None`."""
        return self._next.get(kind, key)

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """Return all entries of a kind as they will be, in order."""
        return self._next.entries(kind)

    def view(self, kind: str) -> Any:
        """Return the kind's derived value as it will be."""
        return self._next.view(kind)

    def set_view(self, kind: str, value: Any) -> None:
        """Set what goes live beside the entries of a kind (a routing table, say)."""
        self._next._views[kind] = value

    def hooks_changed(self, *events: str) -> bool:
        """Tell whether those who have a say in one of these events change in this draft.

        A handler with a true attribute `observes` has none.
        """
        changed = (*self.added, *self.removed)
        names = self._changed | {
            str(entry.key)
            for entry in changed
            if entry.kind in (HOOK, PATTERN) and not getattr(entry.value.handler, "observes", False)
        }
        return any(event in names or any(matches(n, event) for n in names) for event in events)

    def changed_hooks(self) -> frozenset[str]:
        """Return the events and patterns whose subscribers change."""
        changed = (*self.added, *self.removed)
        return self._changed | {str(e.key) for e in changed if e.kind in (HOOK, PATTERN)}

    async def emit(self, event: str, value: Any = None, *args: Any) -> Any:
        """Emit strictly, with the hooks as they will be: what a hook raises refuses the draft."""
        return await self._bus.emit_with(self.seal(), event, value, *args)

    def post(self, event: str, *args: Any) -> None:
        """Emit an event soon after this draft has gone live; never if it does not."""
        self.posts.append((event, *args))

    async def accept(self) -> None:
        """Let every kind that this draft touches say whether it is sound.

        Raises:
            Exception: Whatever an `accept` raised; nothing has happened then.
        """
        touched = {entry.kind for entry in (*self.added, *self.removed)}
        for entry in self._next.entries(KIND):
            kind: Kind = entry.value
            if kind.accept and (kind.name in touched or self.hooks_changed(*kind.retest)):
                await kind.accept(self)
        self.accepted = True

    @property
    def needs_accepting(self) -> bool:
        """Whether anybody has to be asked: if not, it may be published at once."""
        touched = {entry.kind for entry in (*self.added, *self.removed)}
        return any(
            kind.value.accept and (kind.key in touched or self.hooks_changed(*kind.value.retest))
            for kind in self._next.entries(KIND)
        )

    def seal(self) -> Registry:
        """Return the next registry, with the plans that this draft leaves as they are."""
        if not self._sealed:
            changed = (*self.added, *self.removed)
            wrapped = any(e.kind in (WRAP, WRAP_EMISSION, PROBE) for e in changed)
            names = self.changed_hooks() | {str(e.key) for e in changed if e.kind == EVENT}
            plans = self.before.plans
            self._next.plans = plans.without(None if wrapped else names, self._next)
            self._sealed = True
        return self._next

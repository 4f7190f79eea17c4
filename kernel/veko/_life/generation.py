"""The life cycle: one table of states and moves, and the two records that go through it.

A `PluginRecord` is what stays of a plugin by name; a `Generation` is one life of its code, with
what that registered. A generation's place (rank of the plugin, then order of registration) is
what keeps hooks in their order over toggle and reload.
"""

from __future__ import annotations

import enum
import weakref
from collections.abc import Collection, Hashable
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import anyio

from .._bus.handles import Handle
from .._bus.registry import Entry
from ..errors import StateError, TransactionError, text_of
from .plugin import Manifest, Plugin, requirement_name
from .scope import Root, Scope

__all__ = ["MOVES", "OPERATION", "Generation", "Operation", "PluginRecord", "State"]


class Operation:
    """The mark of an operation that is under way in a context, and of those around it."""

    __slots__ = ("_token", "outer", "records")

    def __init__(self, *records: PluginRecord) -> None:
        self.records = records
        self.outer = OPERATION.get()

    def __enter__(self) -> None:
        self._token = OPERATION.set(self)

    def __exit__(self, *error: object) -> None:
        self.records = ()  # a timer made meanwhile may keep this context
        OPERATION.reset(self._token)

    @classmethod
    def is_on(cls, record: PluginRecord) -> bool:
        """Tell whether one on this plugin is under way here: another would wait for it."""
        operation = OPERATION.get()
        while operation is not None and record not in operation.records:
            operation = operation.outer
        return operation is not None


OPERATION: Final[ContextVar[Operation | None]] = ContextVar("veko_operation", default=None)


class State(enum.StrEnum):
    """Where a plugin stands."""

    DISCOVERED = "discovered"
    RESOLVED = "resolved"
    LOADING = "loading"
    ACTIVE = "active"
    INACTIVE = "inactive"
    UNLOADING = "unloading"
    UNLOADED = "unloaded"
    FAILED = "failed"


MOVES: Final[dict[State, frozenset[State]]] = {
    State.DISCOVERED: frozenset({State.RESOLVED, State.FAILED}),
    State.RESOLVED: frozenset({State.LOADING, State.FAILED}),
    State.LOADING: frozenset({State.ACTIVE, State.FAILED}),
    State.ACTIVE: frozenset({State.INACTIVE, State.UNLOADING, State.FAILED}),
    State.INACTIVE: frozenset({State.ACTIVE, State.UNLOADING, State.FAILED}),
    State.UNLOADING: frozenset({State.UNLOADED, State.FAILED}),
    State.UNLOADED: frozenset({State.LOADING}),
    State.FAILED: frozenset({State.LOADING, State.UNLOADING}),
}
"""Which state may follow which."""


class Changes(Protocol):
    """What brings single entries of a live plugin into the registry, and takes them out."""

    def add(self, generation: Generation, entry: Entry, handle: Handle) -> None:
        """Add one entry."""

    def remove(self, entry: Entry) -> None:
        """Take one entry away."""


class Retiring(Protocol):
    """A generation that was replaced, with the calls that still run in it.

    Attributes:
        done: Set when it is over.
    """

    done: anyio.Event

    def cut(self) -> None:
        """Wait no more for its calls."""

    async def wait(self, spare: frozenset[int]) -> None:
        """Wait for the end, whose calls of the caller's own are no part of."""


class Generation:
    """One life of a plugin's code, and what that registered.

    Attributes:
        number: Counts from 1.
        config: Its configuration, as `config:validate` left it.
        entries: What it registered, in order.
        uses: By service that it has used: the provider's name and generation.
        late: Those that it first used when `load()` and `activate()` were over.
        group: By name, the new generations of the transaction that this one is part of.
        open: Whether `load()` still runs: what is registered then waits for its end.
        live: Whether its entries are in the registry.
        closed: Whether it is over: nothing more can be registered.
        loaded: Whether its `load()` has returned.
        activated: Whether its `activate()` has returned and its `deactivate()` has not run.
        passing: What `activate()` registered: taken away when the plugin is switched off, since
            it is registered again when that is switched on.
    """

    def __init__(
        self, root: Root, changes: Changes, record: PluginRecord, plugin: Plugin, number: int
    ) -> None:
        self._changes = changes
        self.record = record
        self.plugin = plugin
        self.number = number
        self.config: Any = None
        self.given: dict[str, Any] = {}
        self.context: Any = None
        self.scope = Scope(root)
        self.entries: list[Entry] = []
        self.handles: dict[Entry, Handle] = {}
        self.uses: dict[str, tuple[str, weakref.ref[Generation]]] = {}
        self.late: set[str] = set()
        self.group: dict[str, Generation] = {}
        self.open = True
        self.live = False
        self.closed = False
        self.loaded = False
        self.activated = False
        self.passing: list[Handle] = []
        self._places = 0

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self.plugin.manifest.name

    @property
    def version(self) -> str:
        """The plugin's version."""
        return self.plugin.manifest.version

    @property
    def manifest(self) -> Manifest:
        """The plugin's description of itself."""
        return self.plugin.manifest

    def count_error(self, error: BaseException) -> None:
        """Count a failure of the plugin's code."""
        self.record.error_count += 1
        self.record.last_error = f"{type(error).__name__}: {text_of(error)}"

    def check_open(self) -> None:
        """Raise unless this generation may still register something.

        Raises:
            TransactionError: It is no more.
        """
        if self.closed:
            raise TransactionError(
                f"generation {self.number} of it is over: it was unloaded or replaced",
                plugin=self.name,
                remedy="Do not keep the context beyond unload().",
            )

    def place(self) -> tuple[int, int]:
        """Return the next place within the plugin."""
        self._places += 1
        return self.record.rank, self._places

    def register(self, kind: str, key: Hashable, value: Any, priority: float = 0) -> Handle:
        """Register something: with the others when `load()` has returned, later at once.

        Raises:
            TransactionError: This generation is no more.
        """
        handle = value if isinstance(value, Handle) else Handle(None)
        entry = Entry(kind, key, value, self, priority, self.place())
        self.check_open()
        handle._undo = lambda: self.withdraw(entry)
        self.handles[entry] = handle
        if self.open or not self.live:
            handle.wait_for(self)
            self.entries.append(entry)
        else:
            self._changes.add(self, entry, handle)
        return handle

    def withdraw(self, entry: Entry) -> None:
        """Take one entry away."""
        self.handles.pop(entry, None)
        if entry in self.entries:
            self.entries.remove(entry)
            if self.live:
                self._changes.remove(entry)

    @property
    def held(self) -> tuple[Handle, ...]:
        """The handles of all that is registered now."""
        return *self.handles.values(), *self.scope.tasks

    def settle(self, error: BaseException | None = None) -> None:
        """Tell the handles that wait how it ended."""
        for handle in self.held:
            if handle.pending:
                handle.settle(error)

    def staged(self, kind: str, key: Hashable) -> Entry | None:
        """Return what this generation, or its group, stages and nobody else sees yet."""
        for generation in () if self.live else (self, *self.group.values()):
            for entry in generation.entries:
                if entry.kind == kind and entry.key == key:
                    return entry
        return None

    def replaces(self, owner: Any) -> bool:
        """Tell whether its group has the generation that comes after an owner."""
        return getattr(owner, "name", None) in self.group


class PluginRecord:
    """What the kernel knows of a plugin; `get_plugin(name)` gives it.

    Attributes:
        name: The plugin's name.
        state: Where it stands.
        error: Why it failed, if it did.
        failed_step: The step in which it failed.
        loaded_at: When it was last loaded.
        load_duration: Seconds that took.
        error_count: How often its code failed since it was first loaded.
        last_error: What it failed with last, as text: an error would keep its frames alive.
        retiring: Generations that were replaced, with the calls that still run in them.
        rank: Its place among the plugins, by arrival; kept over toggle and reload.
    """

    def __init__(self, plugin: Plugin, rank: int) -> None:
        self.name = plugin.manifest.name
        self.plugin = plugin
        self.retiring: list[Retiring] = []
        self.rank = rank
        self.state = State.DISCOVERED
        self.current: Generation | None = None
        self.error: BaseException | None = None
        self.failed_step: str | None = None
        self.loaded_at: datetime | None = None
        self.load_duration: float = 0.0
        self.error_count = 0
        self.last_error: str | None = None
        self.generations = 0
        self.lock = anyio.Lock(fast_acquire=True)

    @property
    def version(self) -> str:
        """The version that runs."""
        return self.plugin.manifest.version

    @property
    def manifest(self) -> Manifest:
        """The plugin's description of itself."""
        return self.plugin.manifest

    @property
    def module(self) -> Any:
        """The module, class instance or mapping that the plugin was written as."""
        return self.plugin.module

    @property
    def exports(self) -> Any:
        """Its `exports`, if it has such a name; else its public names."""
        return self.plugin.exports

    @property
    def source(self) -> Path | None:
        """The file or folder that it came from."""
        return self.plugin.source

    @property
    def core(self) -> bool:
        """Whether it is part of the manager."""
        return self.plugin.core

    @property
    def config(self) -> Any:
        """Its configuration now; `None` if it is not loaded."""
        return self.current.config if self.current else None

    @property
    def generation(self) -> int:
        """The number of the generation that runs, from 1."""
        return self.current.number if self.current else 0

    @property
    def active(self) -> bool:
        """Whether it is switched on."""
        return self.state is State.ACTIVE

    @property
    def loaded(self) -> bool:
        """Whether its `load()` has returned and its `unload()` has not run."""
        return self.current is not None

    def needs(self) -> Collection[str]:
        """Return the names of the plugins that it declares or was seen to need."""
        declared = self.manifest.dependencies
        uses = self.current.uses if self.current is not None else None
        if not declared and not uses:  # of most it is asked, and they are asked one by one
            return ()
        names = [requirement_name(r) for r in declared]
        return names + [provider for provider, _ in uses.values()] if uses else names

    def move(self, to: State) -> None:
        """Go to another state.

        Raises:
            StateError: The life cycle does not allow it.
        """
        if to not in MOVES[self.state]:
            allowed = ", ".join(sorted(MOVES[self.state]))
            raise StateError(
                f"it is {self.state} and cannot become {to}",
                plugin=self.name,
                remedy=f"From there it may become: {allowed}.",
            )
        self.state = to

    def fail(self, step: str, error: BaseException) -> None:
        """Go to `failed`, with the step and the error."""
        self.state, self.failed_step, self.error = State.FAILED, step, error

    def __repr__(self) -> str:
        return f"<Plugin {self.name} {self.version}, {self.state}>"

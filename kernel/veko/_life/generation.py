"""The two records of a plugin: what the kernel knows of it, and one life of its code.

A `PluginRecord` stays for as long as the plugin is known by name. A `Generation` is one life of
its code, with everything that this registered. A generation numbers what it registers after the
rank of its plugin, which keeps hooks in their order over toggle and reload.
"""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Hashable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import anyio

from .._bus.handles import Handle
from .._bus.registry import Entry, Registry
from .._bus.threads import this_thread
from ..errors import StateError, TransactionError, VekoError, text_of
from .plugin import Manifest, Plugin
from .root import Root
from .scope import Scope
from .states import MOVES, State

__all__ = ["Changes", "Generation", "PluginRecord", "Retiring"]


class Changes(Protocol):
    """Adds single entries of a live plugin to the registry, and removes them."""

    def add(self, generation: Generation, entry: Entry, handle: Handle) -> None:
        """Add one entry."""

    def remove(self, entry: Entry) -> None:
        """Remove one entry."""

    def stage(self, entry: Entry) -> None:
        """Take note of an entry that a generation staged after `load()` and `activate()`."""


class Retiring(Protocol):
    """A replaced generation in which calls still run.

    Attributes:
        done: Set when it has ended.
    """

    done: anyio.Event

    def cut(self) -> None:
        """Stop waiting for its calls, and cancel them."""

    async def wait(self, spare: frozenset[int]) -> None:
        """Wait until it has ended; the caller's own calls into it are not waited for."""


class Generation:
    """One life of a plugin's code, and everything that this registered.

    Attributes:
        name: The plugin's name.
        number: Counts the plugin's generations from 1.
        config: Its configuration, as `config:validate` left it.
        given: The configuration that it was given, without defaults.
        configuring: Held while its configuration changes.
        entries: What it registered, in order: the keys of a dict, since a list takes as long to
            find one as it is.
        uses: The provider's name and generation for each service that it has used.
        late: The services that it first used after `load()` and `activate()`.
        provided_late: The services that its tasks, or what else runs after `load()` and
            `activate()`, first provided.
        awaited: The service that `load()` or `activate()` last waited for without getting it.
        group: The new generations of the reload that this one is part of, by plugin name.
        open: Whether `load()` still runs. What is registered meanwhile waits for its end.
        ahead: Whether its tasks run though it is not live yet (see `late`).
        live: Whether its entries are in the registry.
        closed: Whether it has ended. Nothing more can be registered.
        loaded: Whether `load()` has returned.
        activated: Whether `activate()` has returned and `deactivate()` has not run.
        passing: What `activate()` registered. It is removed when the plugin is switched off,
            since `activate()` registers it again when the plugin is switched on.
    """

    def __init__(
        self, root: Root, changes: Changes, record: PluginRecord, plugin: Plugin, number: int
    ) -> None:
        self._root = root
        self._changes = changes
        self.record = record
        self.plugin = plugin
        self.name = record.name
        self.number = number
        self.config: Any = None
        self.given: dict[str, Any] = {}
        self.configuring = anyio.Lock(fast_acquire=True)
        self.context: Any = None
        self.scope = Scope(root)
        self.entries: dict[Entry, None] = {}
        self.handles: dict[Entry, Handle] = {}
        self.uses: dict[str, tuple[str, weakref.ref[Generation]]] = {}
        self.late: set[str] = set()
        self.provided_late: set[Hashable] = set()
        self.awaited: str | None = None
        self.group: dict[str, Generation] = {}
        self.open = True
        self.ahead = False
        self.live = False
        self.closed = False
        self.loaded = False
        self.activated = False
        self.passing: list[Handle] = []
        self._registered = 0

    @property
    def version(self) -> str:
        """The plugin's version."""
        return self.plugin.manifest.version

    @property
    def source(self) -> Path | None:
        """The file that the plugin's code is in."""
        return self.plugin.source

    @property
    def manifest(self) -> Manifest:
        """The plugin's manifest."""
        return self.plugin.manifest

    def count_error(self, error: BaseException) -> None:
        """Count a failure of the plugin's code."""
        self.record.error_count += 1
        self.record.last_error = f"{type(error).__name__}: {text_of(error)}"

    def check_open(self) -> None:
        """Raise unless this generation may still register something.

        Raises:
            TransactionError: It has ended.
            StateError: Another thread than this one runs the kernel.
        """
        if this_thread() != self._root.thread:  # the usual case costs no call
            self._root.check_thread()
        if self.closed:
            raise TransactionError(
                f"generation {self.number} has ended: it was unloaded or replaced",
                plugin=self.name,
                remedy="Do not keep the context beyond unload().",
            )

    def register(self, kind: str, key: Hashable, value: Any, priority: float = 0) -> Handle:
        """Register something: with the rest when `load()` has returned, after that at once.

        What tasks that run ahead register goes live with the rest, too; awaiting it does not wait
        for that, since others wait for the tasks (test_late_services.py).

        Raises:
            TransactionError: This generation has ended.
        """
        self.check_open()
        self._registered += 1
        order = self.record.rank, self._registered
        entry = Entry(kind, key, value, self, priority, order)
        handle = value if isinstance(value, Handle) else Handle(None)
        handle.undo_by(lambda: self.withdraw(entry))
        self.handles[entry] = handle
        if kind == "service" and self.runs:
            self.provided_late.add(key)
        if self.live:
            self._changes.add(self, entry, handle)
            return handle
        self.entries[entry] = None
        if self.ahead:
            self._changes.stage(entry)
        else:
            handle.wait_for(self)
        return handle

    def withdraw(self, entry: Entry) -> None:
        """Remove one entry."""
        if this_thread() != self._root.thread:  # the usual case costs no call
            self._root.check_thread()
        self.handles.pop(entry, None)
        if entry in self.entries:
            del self.entries[entry]
            if self.live:
                self._changes.remove(entry)

    @property
    def held(self) -> tuple[Handle, ...]:
        """The handles of everything that is registered now."""
        return *self.handles.values(), *self.scope.tasks

    @property
    def runs(self) -> bool:
        """Whether its tasks run, because it is live or ahead of that."""
        return self.live or self.ahead

    def run_ahead(self) -> None:
        """Start the tasks before it is live; `load()` and `activate()` have run."""
        self.open, self.ahead = False, True
        tasks = self.scope.tasks
        self.scope.start_tasks()
        for task in tasks:
            if task.pending:
                task.settle()

    def go_live(self, begin: float | None = None) -> None:
        """Start the tasks, and settle the handles: its entries are in the registry now.

        Args:
            begin: When loading it began, by `time.perf_counter()`; `None` if it was only
                switched on.
        """
        if begin is not None:
            self.record.was_loaded(begin)
        self.open, self.ahead, self.live = False, False, True
        held = self.held
        self.scope.start_tasks()
        for handle in held:
            if handle.pending:
                handle.settle()

    def settle(self, error: BaseException) -> None:
        """Let the handles that wait raise an error: it never went live, or has ended."""
        for handle in self.held:
            if handle.pending:
                handle.settle(error)

    def visible(self, registry: Registry, kind: str, key: Hashable) -> Entry | None:
        """Return an entry as this generation's code is to see it.

        What it or its group has staged, which nobody else sees yet, comes before what is live;
        what its group replaces is not there any more.
        """
        for generation in () if self.live else (self, *self.group.values()):
            for entry in generation.entries:
                if entry.kind == kind and entry.key == key:
                    return entry
        live = registry.get(kind, key)
        if live is not None and getattr(live.owner, "name", None) in self.group:
            return None
        return live

    def staged_entries(self, kind: str) -> list[Entry]:
        """Return all that this generation and its group have staged of a kind."""
        if self.live:
            return []
        staging = {id(one): one for one in (self, *self.group.values())}
        return [e for one in staging.values() for e in one.entries if e.kind == kind]

    def sees(self, record: PluginRecord) -> PluginRecord:
        """Return a plugin's record as this generation's code is to see it.

        While a reload makes a group of generations, their code sees the next generation of each
        member: a copy of the record, since the record itself shows what is live to everybody else
        (test_the_load_of_a_dependent_sees_what_is_staged_and_nobody_else).
        """
        following = self.group.get(record.name)
        if following is None:
            return record
        seen = copy.copy(record)
        seen.plugin, seen.current = following.plugin, following
        return seen


class PluginRecord:
    """What the kernel knows of a plugin; `get_plugin(name)` returns it.

    Attributes:
        name: The plugin's name.
        plugin: The plugin, in the normal form of all the ways to write one.
        state: Where it is in its life.
        current: The generation that runs, or `None` if it is not loaded.
        error: Why it failed, as text; `None` if it did not. The exception itself would keep the
            frames of the failed generation alive, and with them its module.
        failed_step: The step in which it failed.
        loaded_at: When it was last loaded or reloaded, in UTC.
        load_duration: How long that took, in seconds.
        error_count: How often its code has failed since it was first loaded.
        last_error: Its last failure, as text: the class and the message.
        retiring: Replaced generations in which calls still run.
        needed: The names of the plugins that it needs, or has needed.
        rank: Its position among the plugins, by arrival; kept over toggle and reload.
        generations: How many generations it has had.
        lock: Held by the operation that is under way on it.
    """

    def __init__(self, plugin: Plugin, rank: int) -> None:
        self.name = plugin.manifest.name
        self.plugin = plugin
        self.retiring: list[Retiring] = []
        self.rank = rank
        self.needed: set[str] = set()
        self.state = State.DISCOVERED
        self.current: Generation | None = None
        self.error: str | None = None
        self.failed_step: str | None = None
        self.loaded_at: datetime | None = None
        self.load_duration: float = 0.0
        self.error_count = 0
        self.last_error: str | None = None
        self.generations = 0
        self.lock = anyio.Lock(fast_acquire=True)

    @property
    def version(self) -> str:
        """The version."""
        return self.plugin.manifest.version

    @property
    def manifest(self) -> Manifest:
        """The plugin's manifest."""
        return self.plugin.manifest

    @property
    def module(self) -> Any:
        """The module, instance or mapping that the plugin was written as."""
        return self.plugin.module

    @property
    def exports(self) -> Any:
        """Its `exports` if it defines that name, otherwise its public names."""
        return self.plugin.exports

    @property
    def source(self) -> Path | None:
        """The file or folder that it was loaded from."""
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

    @property
    def uptime(self) -> float:
        """Seconds since it was loaded or reloaded; 0 if it is not loaded."""
        if not self.loaded or self.loaded_at is None:
            return 0.0
        # By the wall clock, which may be set back.
        return max(0.0, (datetime.now(UTC) - self.loaded_at).total_seconds())

    def was_loaded(self, begin: float) -> None:
        """Note that it was loaded just now.

        Args:
            begin: What `time.perf_counter()` gave when loading began.
        """
        self.loaded_at = datetime.now(UTC)
        self.load_duration = time.perf_counter() - begin

    def move(self, to: State) -> None:
        """Go to another state, and forget why it failed if it had.

        Raises:
            StateError: The life cycle does not allow it.
        """
        if to not in MOVES[self.state]:
            allowed = ", ".join(sorted(MOVES[self.state]))
            raise StateError(
                f"it is {self.state} and cannot become {to}",
                plugin=self.name,
                remedy=f"It can become: {allowed}.",
            )
        self.state = to
        self.error = self.failed_step = None

    def locate(self, error: BaseException) -> None:
        """Add the plugin and its file to an error of Veko's that does not name any."""
        if isinstance(error, VekoError):
            error.plugin = error.plugin or self.name
            error.path = error.path or self.source

    def fail(self, step: str, error: BaseException) -> None:
        """Go to `failed`, with the step and the text of the error."""
        self.state, self.failed_step, self.error = State.FAILED, step, text_of(error)

    def __repr__(self) -> str:
        return f"<Plugin {self.name} {self.version}, {self.state}>"

"""The bus: an async priority event bus over an immutable registry.

Emitting by name costs one dict lookup and the plan; an event without handlers costs the lookup.
There is no lock, no copy and no look-up per handler. A change of subscriptions swaps the
registry; an emission under way finishes on the plan that it began with.
"""

from __future__ import annotations

import functools
import itertools
import logging
import weakref
from collections.abc import Callable, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final

import anyio

from ..errors import HookTimeout, text_of
from .events import Event, Origin, is_pattern
from .handles import Handle, Subscription
from .pins import Pin
from .plans import Plan, Plans, Token
from .probes import Probe
from .registry import EVENT, HOOK, INTERCEPTOR, PATTERN, PROBE, STEP, Draft, Entry, Owner, Registry

__all__ = ["Bus", "Registrar", "hook_kind"]

_log: Final = logging.getLogger("veko")
_MISSING: Final[Any] = object()

EVENTS: Final = (
    Event(
        "error:handle",
        payload=BaseException,
        returns=True,
        doc="Any error that a handler or a plugin's code raised. The error and its `Origin`.",
    ),
    Event(
        "plugin:error",
        payload=str | None,
        doc="A plugin failed: its name (`None`: the host's own handler) and the error.",
    ),
    Event(
        "plugin:timeout",
        payload=str | None,
        doc="A plugin's handler or step reached its time limit: its name and the error.",
    ),
)


async def _nothing(value: Any = None, *args: Any) -> Any:
    return value


class Registrar:
    """What can be registered: on the bus by the host, at once; in a context by a plugin, staged."""

    def register(self, kind: str, key: Any, value: object, *, priority: float = 0) -> Handle:
        """Register an entry of any kind.

        Args:
            kind: The kind's name.
            key: What it is found by.
            value: What is registered.
            priority: The higher comes first among its equals.

        Returns:
            A handle that waits until it is live, or takes it away.
        """
        raise NotImplementedError

    def declare(self, event: Event) -> Handle:
        """Declare an event: its payload is checked from now on.

        Raises:
            ConflictError: An event of that name is declared otherwise.
        """
        return self.register(EVENT, event.name, event)

    def intercept(self, wrap: Callable[[str, Subscription, Callable[..., Any]], Any]) -> Handle:
        """Wrap handlers: `wrap(event, subscription, call)` returns what is called instead.

        It runs once a handler when a plan is made, so it costs nothing where it returns `call`.
        An async wrapper of a sync handler is fine. The first to come is the outermost.
        """
        return self.register(INTERCEPTOR, INTERCEPTOR, wrap)

    def probe(self, make: Callable[[str, Sequence[Subscription]], Probe | None]) -> Handle:
        """Put lines of code around handlers and emissions: `make(event, subscriptions)`.

        For what is to cost next to nothing a call, as tracing and metrics: see `Probe`. It is asked
        when a plan is made, and stands around what interceptors made of the handlers. The first to
        come is the outermost.
        """
        return self.register(PROBE, PROBE, make)

    def intercept_step(
        self, enclose: Callable[[str, Owner], AbstractContextManager[Any]]
    ) -> Handle:
        """Stand around the steps of the life cycle: `with enclose(step, plugin)`.

        A step is an operation on a plugin (`load`, `unload`, `toggle`, `reload`, `configure`) or,
        within it, a call of one of its functions (`load()`, `activate()`, ...).
        """
        return self.register(STEP, STEP, enclose)


class Bus(Registrar):
    """An async priority event bus; usable alone, without a kernel.

    Attributes:
        live: The plans of what is live now.
        older: Those of before that somebody holds, the oldest first.
        moved: Called with each draft after it went live; for the kernel.
        reporting: Ids of the tasks in which a failure is being reported.
    """

    def __init__(self) -> None:
        self.live = Plans(self, Registry(0, {}, {}))
        self.older: list[Plans] = []
        self.moved: Callable[[Draft], None] = _ignore
        self.reporting: set[int] = set()
        self.arrival = itertools.count(1)
        self._plans: dict[str, Plan | None] = self.live
        self._pinned = _Pinned(self)
        self._leases: list[tuple[Plan, weakref.ref[Token]]] = []
        self._waiting: set[anyio.Event] = set()
        self._emitters: dict[str, functools.partial[Coroutine[Any, Any, Any]]] = {}
        for event in EVENTS:
            self.declare(event)

    # -- subscribing

    def on(
        self,
        event: str,
        handler: Callable[..., Any],
        *,
        priority: float = 10,
        owner: Any = None,
        timeout: float | None = None,
    ) -> Subscription:
        """Subscribe a handler, at once.

        Args:
            event: The event's name, or a pattern (`plugin:*`, `**`).
            handler: `def` or `async def`; it gets the value and the other arguments by position,
                cut to its parameters without default.
            priority: The higher runs first; equal ones in order of arrival.
            owner: Whose it is, for messages: anything with a `name`, or a string.
            timeout: Seconds that an async handler may take; `None` for no limit.

        Returns:
            The subscription; `cancel()` ends it.

        Raises:
            VekoError: The name, the handler or the time limit is not sound.
        """
        subscription = Subscription(event, handler, priority=priority, owner=owner, timeout=timeout)
        self.register(hook_kind(event), event, subscription, priority=priority)
        return subscription

    def register(self, kind: str, key: Any, value: object, *, priority: float = 0) -> Handle:
        """Register an entry of the host's own, at once; see `Registrar.register`."""
        handle = value if isinstance(value, Handle) else Handle(None)
        owner = getattr(value, "owner", None)
        entry = Entry(kind, key, value, owner, priority, (next(self.arrival), 0))
        self.change(add=[entry])
        handle._undo = lambda: self.change(remove=[entry])
        return handle

    def draft(self, changed: frozenset[str] = frozenset()) -> Draft:
        """Begin the next registry."""
        return Draft(self.registry, functools.partial(self._emit_in, self.live), changed)

    def change(self, *, add: Iterable[Entry] = (), remove: Iterable[Entry] = ()) -> None:
        """Make and publish the next registry at once, without asking anybody."""
        draft = self.draft()
        for entry in remove:
            draft.remove(entry)
        for entry in add:
            draft.add(entry)
        self.publish(draft)

    @property
    def registry(self) -> Registry:
        """What is live now."""
        return self.live.registry

    @property
    def events(self) -> tuple[Event, ...]:
        """The declared events, in order of declaration."""
        return tuple(entry.value for entry in self.registry.entries(EVENT))

    def heard(self, event: str) -> bool:
        """Tell whether an event has handlers here."""
        return self._plans[event] is not None

    def plan(self, event: str) -> Plan | None:
        """Return the plan of an event here, or `None` if it has no handlers."""
        return self._plans[event]

    def step(self, step: str, plugin: Owner) -> ExitStack:
        """Return what stands around a step of the life cycle."""
        stack = ExitStack()
        for entry in self.registry.entries(STEP):
            stack.enter_context(entry.value(step, plugin))
        return stack

    # -- emitting

    def emit(
        self, event: str, value: Any = None, *args: Any, strict: bool = False
    ) -> Coroutine[Any, Any, Any]:
        """Run the handlers of an event one after the other, the higher priority first.

        Args:
            event: The event's name.
            value: What the first handler gets; what a handler returns, unless `None`, is what
                the next one gets (events declared without `returns` keep it as it is).
            args: What every handler gets besides.
            strict: Raise what a handler raises instead of reporting it and going on.

        Returns:
            What to await for the last value, or that of a `Stop`. If the subscribers change
            between the call and the `await`, those of the `await` count, unless there were none.

        Raises:
            Exception: With `strict`, what a handler raised.
        """
        # A plain def: a coroutine of its own around the plan's would cost 60 ns.
        plan = self._plans[event]
        if plan is None:
            return _nothing(value)
        if strict:
            return plan.strict(value, *args)
        return plan.call(value, *args) if args else plan.call(value)

    def emitter(self, event: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return `emit` bound to an event, without the lookup: for hot places.

        It is a partial whose function is changed when the plan changes, since a call through one
        costs 10 ns where a closure or a method costs 60.
        """
        emitter = self._emitters.get(event)
        if emitter is None:
            emitter = self._emitters[event] = functools.partial(self.emit, event)
            plan = self._plans[event]
            if plan is not None:
                self.aim(plan)
        return emitter

    def aim(self, plan: Plan) -> None:
        """Let the emitter of a plan's event call that plan, if it is the one in use."""
        emitter = self._emitters.get(plan.event)
        used = plan if plan.steps else None
        if emitter is not None and self._plans.get(plan.event, _MISSING) is used:
            _set(emitter, plan.call if plan.steps else _nothing)

    def first(self, event: str, *args: Any) -> Coroutine[Any, Any, Any]:
        """Ask the handlers one after the other; the first answer that is not `None` ends it.

        A handler that fails is reported and passed over.

        Returns:
            What to await for the answer (that of a `Stop` may be `None`), or `None`.
        """
        plan = self._plans[event]
        return _nothing() if plan is None else plan.first(*args)

    def gather(self, event: str, *args: Any) -> Coroutine[Any, Any, list[Any]]:
        """Ask all handlers at once.

        Returns:
            What to await for their answers in the handlers' order; one that failed is reported
            and left out.
        """
        plan = self._plans[event]
        return _nothing([]) if plan is None else plan.gather(*args)

    async def _emit_in(self, live: Plans, draft: Draft, event: str, value: Any, *args: Any) -> Any:
        plan = _plans_of(live, draft)[event]
        return value if plan is None else await plan.strict(value, *args)

    async def report(
        self,
        error: BaseException,
        *,
        owner: Any = None,
        event: str | None = None,
        handler: str | None = None,
        subject: Any = None,
    ) -> None:
        """Report a failure: counted, logged, and told to `error:handle` and `plugin:error`.

        Errors raised while one is being reported are logged and go no further. It raises only
        what must pass (cancellation).

        Args:
            error: What was raised.
            owner: Whose code raised it.
            event: The event that was being emitted.
            handler: The name of the function.
            subject: What was being worked on.
        """
        count = getattr(owner, "count_error", None)
        if count is not None:
            count(error)
        name = getattr(owner, "name", owner)
        task = anyio.get_current_task().id
        _log.error("%s failed: %s", name or handler or "a handler", text_of(error), exc_info=error)
        if task in self.reporting:
            return
        self.reporting.add(task)
        try:
            error = await self.emit("error:handle", error, Origin(name, event, handler, subject))
            if isinstance(error, HookTimeout):
                await self.emit("plugin:timeout", name, error)
            await self.emit("plugin:error", name, error)
        finally:
            self.reporting.discard(task)

    # -- one registry after the other

    def pin(self) -> Pin:
        """Return a context manager inside which the registry stays the one of its beginning."""
        return Pin(self)

    def pinned(self) -> Plans:
        """Return the plans that are pinned here, else those of what is live."""
        pin = Pin.held_here(self)
        return self.live if pin is None or pin.plans is None else pin.plans

    def publish(self, draft: Draft) -> None:
        """Swap the registry for the next one. No await in here: nobody sees half of it."""
        assert draft.before is self.registry, "a draft of an older registry"
        self.older.append(self.live)
        self.live = _plans_of(self.live, draft)
        self.settle()
        self.moved(draft)

    def settle(self) -> None:
        """Retire the plans of older registries that nobody holds any more."""
        gone = [old for old in self.older if not old.pins]
        self.older = [old for old in self.older if old.pins]
        kept = {id(plan) for plans in (*self.older, self.live) for plan in plans.values()}
        for plan in {id(p): p for plans in gone for p in plans.values() if p is not None}.values():
            if id(plan) not in kept:
                self.retire(plan)
        self._plans = self._pinned if self.older else self.live
        for event, emitter in self._emitters.items():
            used = self._plans.get(event)
            _set(emitter, self.emit, event) if used is None else _set(emitter, used.call)
        self._progress()

    def retire(self, plan: Plan) -> None:
        """Let no emission begin on a plan any more, and keep an eye on those that run."""
        reference = plan.retire(self._progress)
        if reference is not None:
            self._leases.append((plan, reference))

    def _progress(self, _: object = None) -> None:
        self._leases = [lease for lease in self._leases if lease[1]() is not None]
        for event in self._waiting:
            event.set()

    async def drained(self, registry: Registry, owner: object, spare: AbstractSet[int]) -> None:
        """Wait until no emission runs that may call an owner's handlers.

        Args:
            registry: The last registry that had them.
            owner: Whose handlers.
            spare: Ids of tokens of emissions not to wait for: those that the caller is in.
        """
        while any(old.registry.version <= registry.version for old in self.older) or any(
            id(reference()) not in spare for plan, reference in self._leases if plan.calls(owner)
        ):
            event = anyio.Event()
            self._waiting.add(event)
            try:
                await event.wait()
            finally:
                self._waiting.discard(event)


class _Pinned(dict[str, Plan | None]):
    """Stands in for the plans while somebody holds an older registry: asks the context."""

    def __init__(self, bus: Bus) -> None:
        super().__init__()
        self._bus = bus

    def __missing__(self, event: str) -> Plan | None:
        return self._bus.pinned()[event]


def _ignore(draft: Draft) -> None:
    """Nobody wants to know."""


def _plans_of(before: Plans, draft: Draft) -> Plans:
    """Return the plans of what a draft makes, with those of before that it leaves as they are."""
    if draft.plans is None:
        entries = (*draft.added, *draft.removed)
        changed = draft.changed_hooks | {str(e.key) for e in entries if e.kind == EVENT}
        wrapped = any(entry.kind in (INTERCEPTOR, PROBE) for entry in entries)
        draft.plans = before.after(draft.after, None if wrapped else changed)
    plans: Plans = draft.plans
    return plans


def _set(emitter: functools.partial[Any], function: Callable[..., Any], *args: Any) -> None:
    emitter.__setstate__((function, args, {}, None))  # type: ignore[attr-defined]


def hook_kind(event: str) -> str:
    """Return the kind of a subscription's entry.

    Raises:
        VekoError: The event's name is not sound.
    """
    return PATTERN if is_pattern(event) else HOOK

"""The bus: an async priority event bus over an immutable registry.

Emitting by name costs one dict lookup and the plan; an event without handlers costs the lookup.
There is no lock, no copy and no lookup per handler. A change of subscriptions swaps the registry;
an emission under way finishes on the plan that it began with.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterable
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from typing import Any, Concatenate, Final, Protocol, TypeVar, overload

from ..errors import counts
from .arguments import name_of_event
from .calls import Call, Calls
from .draft import Draft
from .emitters import Emitters, unheard
from .events import REPORTS, Event, Origin
from .handles import Handle, Subscription
from .leases import Leases
from .lookup import Changes, Lookup, Plans, PlansHere, PlansOfDraft
from .owners import Owner, name_of
from .pins import LivePin, Pin
from .plans import Plan
from .registrar import Registrar, hook_kind
from .registry import EVENT, STEP, Entry, Registry
from .reporting import report
from .threads import check_thread, this_thread

__all__ = ["Bus", "Emitter"]

T = TypeVar("T")
_log: Final = logging.getLogger("veko")


class Emitter(Protocol[T]):
    """Emits one declared event; see `Bus.emitter`."""

    def __call__(self, value: T, /, *args: Any) -> Coroutine[Any, Any, T]: ...


class Bus(Registrar):
    """An async priority event bus; usable alone.

    Attributes:
        live: The plans of what is live now.
        moved: Called with each draft after it went live.
        reporting: Ids of the tasks in which a failure is being reported.
        arrival: Counts owners, and what has none, in order of arrival.
        thread: The id of the only thread that may register or cancel; `None` for any. A kernel
            sets it while it runs.
    """

    def __init__(self) -> None:
        self.live = Plans(self, Registry(0, {}, {}))
        self._older: OrderedDict[int, Plans] = OrderedDict()
        self._changes = Changes()
        self.moved: Callable[[Draft], object] = _ignore
        self.reporting: set[int] = set()
        self.arrival = itertools.count(1)
        self.thread: int | None = None
        self._plans: Lookup = self.live
        self._pinned = PlansHere(self)
        self._leases = Leases()
        self._around_steps: tuple[Entry, ...] = ()
        self._emitters = Emitters(self, self.emit)
        self._calls = self._emitters.calls
        self._enclosed = Calls(lambda: self.registry)
        for event in REPORTS:
            self.declare(event)

    # -- subscribing

    @overload
    def on(
        self,
        event: Event[T],
        handler: Callable[[], object] | Callable[Concatenate[T, ...], object],
        *,
        priority: float = ...,
        owner: Owner | str | None = ...,
        timeout: float | None = ...,
        observe: bool = ...,
    ) -> Subscription: ...
    @overload
    def on(
        self,
        event: str,
        handler: Callable[..., Any],
        *,
        priority: float = ...,
        owner: Owner | str | None = ...,
        timeout: float | None = ...,
        observe: bool = ...,
    ) -> Subscription: ...
    def on(
        self,
        event: str | Event[Any],
        handler: Callable[..., Any],
        *,
        priority: float = 10,
        owner: Owner | str | None = None,
        timeout: float | None = None,
        observe: bool = False,
    ) -> Subscription:
        """Subscribe a handler, at once.

        Args:
            event: The event's name, a pattern (`plugin:*`, `**`), or a declared event.
            handler: `def` or `async def`; it gets the value and the other arguments by position,
                cut to its parameters without default.
            priority: The higher runs first; equal ones in order of arrival.
            owner: Its owner, for messages: anything with a `name`, or a string.
            timeout: Seconds that an async handler may take; `None` for no limit.
            observe: Whether the handler only looks. What it returns is ignored, and its failure
                is reported and never ends the emission, not even a strict one or that of an event
                that fails closed.

        Returns:
            The subscription; `cancel()` ends it.

        Raises:
            VekoError: The name, the handler or the time limit is not valid.
            StateError: Another thread than this one runs the kernel.
        """
        name = name_of_event(event)
        kind = hook_kind(name)
        subscription = Subscription(
            name, handler, priority=priority, owner=owner, timeout=timeout, observe=observe
        )
        self.register(kind, name, subscription, priority=priority)
        return subscription

    def register(self, kind: str, key: Hashable, value: object, *, priority: float = 0) -> Handle:
        """Register an entry, at once; see `Registrar.register`."""
        handle = value if isinstance(value, Handle) else Handle(None)
        owner = getattr(value, "owner", None)
        entry = Entry(kind, key, value, owner, priority, order=(next(self.arrival), 0))
        self.change(add=[entry])
        handle.undo_by(lambda: self.change(remove=[entry]))
        return handle

    def draft(self, changed: frozenset[str] = frozenset(), *, slices: bool = True) -> Draft:
        """Begin the next registry.

        Args:
            changed: Events whose subscribers have already changed without acceptance.
            slices: Whether long acceptance lets other tasks run in between.

        Raises:
            StateError: Another thread than this one runs the kernel.
        """
        if this_thread() != self.thread:
            check_thread(self.thread)
        return Draft(
            self.live.registry, functools.partial(self._emit_in, self.live), changed, slices
        )

    def change(self, *, add: Iterable[Entry] = (), remove: Iterable[Entry] = ()) -> None:
        """Make and publish the next registry at once, without acceptance."""
        draft = self.draft()
        draft.remove(*remove)
        draft.add(*add)
        self.publish(draft)

    @property
    def registry(self) -> Registry:
        """What is live now."""
        return self.live.registry

    @property
    def events(self) -> tuple[Event[Any], ...]:
        """The declared events, in order of declaration."""
        return tuple(entry.value for entry in self.registry.entries(EVENT))

    def heard(self, event: str | Event[Any]) -> bool:
        """Tell whether an event has handlers here."""
        return self._plans[event] is not None

    def plan(self, event: str | Event[Any]) -> Plan | None:
        """Return the plan of an event here, or `None` if it has no handlers."""
        return self._plans[event]

    def step(self, step: str, owner: Owner) -> ExitStack:
        """Return what interceptors put around a step: `with bus.step("load", owner)`."""
        stack = ExitStack()
        for entry in self._around_steps:
            stack.enter_context(entry.value(step, owner))
        return stack

    # -- emitting

    @overload
    def emit(
        self, event: Event[T], value: T, *args: Any, strict: bool = ...
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def emit(self, event: Event[None], *, strict: bool = ...) -> Coroutine[Any, Any, None]: ...
    @overload
    def emit(
        self, event: str, value: Any = ..., *args: Any, strict: bool = ...
    ) -> Coroutine[Any, Any, Any]: ...
    def emit(
        self, event: str | Event[Any], value: Any = None, *args: Any, strict: bool = False
    ) -> Coroutine[Any, Any, Any]:
        """Run the handlers of an event one after the other, the higher priority first.

        Args:
            event: The event's name, or the declared event.
            value: What the first handler gets; what a handler returns, unless `None`, is what
                the next one gets (events declared without `returns` keep the value).
            args: Further arguments, the same for every handler.
            strict: Raise what a handler raises instead of reporting it and continuing.

        Returns:
            What to await for the last value, or that of a `Stop`. If the subscribers change
            between the call and the `await`, those of the `await` count, unless there were none, or
            a pin (a request) still holds the registry of the call.

        Raises:
            Exception: With `strict`, or of an event that fails closed, what a handler raised; a
                `HookTimeout` if it exceeded its time limit.
        """
        # A plain def: a coroutine of its own around the plan's would cost 60 ns. A declared event
        # is found by `__missing__`, so a name costs nothing for that.
        if strict:
            plan = self._plans[event]
            call = unheard if plan is None else plan.strict
        else:
            call = self._calls[event]
        return call(value, *args) if args else call(value)

    @overload
    def emitter(self, event: Event[T]) -> Emitter[T]: ...
    @overload
    def emitter(self, event: str) -> functools.partial[Coroutine[Any, Any, Any]]: ...
    def emitter(self, event: str | Event[Any]) -> Any:
        """Return `emit` bound to an event, without the lookup: for hot places that keep it.

        While the event has no handlers its `func` is `veko.extend.unheard`.
        """
        return self._emitters.get(name_of_event(event))

    def enclose(self, call: Call) -> Callable[..., Any]:
        """Return a function that makes a call inside what probes put around it, now and later."""
        return self._enclosed.keep(call)

    def aim(self, event: str) -> None:
        """Let names and emitters call the live plan of an event; if a pin has another, ask."""
        if event in self.live and self.everywhere(event):
            plan = self.live[event]
            self._emitters.aim(event, unheard if plan is None else plan.call)
        else:
            self._emitters.ask(event)

    @overload
    def first(self, event: Event[T], value: T, /, *args: Any) -> Coroutine[Any, Any, Any]: ...
    @overload
    def first(self, event: str, *args: Any) -> Coroutine[Any, Any, Any]: ...
    def first(self, event: str | Event[Any], *args: Any) -> Coroutine[Any, Any, Any]:
        """Ask the handlers one after the other; the first answer that is not `None` ends it.

        A handler that fails is reported and skipped; if the event fails closed, its error is
        raised. The answers of handlers that observe are ignored.

        Returns:
            What to await for the answer (that of a `Stop` may be `None`), or `None`.
        """
        plan = self._plans[event]
        return unheard() if plan is None else plan.first(*args)

    @overload
    def gather(
        self, event: Event[T], value: T, /, *args: Any
    ) -> Coroutine[Any, Any, list[Any]]: ...
    @overload
    def gather(self, event: str, *args: Any) -> Coroutine[Any, Any, list[Any]]: ...
    def gather(self, event: str | Event[Any], *args: Any) -> Coroutine[Any, Any, list[Any]]:
        """Ask all handlers at once.

        Returns:
            What to await for their answers in the handlers' order. One that observes is left out,
            and so is one that failed, which is reported; if the event fails closed, its error is
            raised instead and the handlers that still run are cancelled.
        """
        plan = self._plans[event]
        return unheard([]) if plan is None else plan.gather(*args)

    async def _emit_in(self, live: Plans, draft: Draft, event: str, value: Any, *args: Any) -> Any:
        plans = draft.plans
        if not isinstance(plans, PlansOfDraft):
            plans = draft.plans = PlansOfDraft(self, live, draft.after, draft.changed_plans)
        plan = plans[event]
        return value if plan is None else await plan.strict(value, *args)

    async def report(
        self,
        error: BaseException,
        *,
        owner: Owner | str | None = None,
        event: str | None = None,
        handler: str | None = None,
        subject: object = None,
        part: str | None = None,
        counted: bool = True,
        passing: bool = False,
    ) -> None:
        """Report a failure: count it, log it, and emit `error:handle` and `plugin:error`.

        The log gets one record of one line, see `failures.summary`; handlers may add the traceback
        of its `exc_info`. Errors raised while one is being reported are logged only. For an error
        that does not count (`VekoError.counts`), only `error:handle` is emitted.

        Args:
            error: What was raised.
            owner: The owner of the code that raised it; see `Owner`.
            event: The event that was being emitted.
            handler: The name of the function.
            subject: What was being worked on.
            part: The part of the owner that it counts against; see `Origin`.
            counted: Whether it counts, if the error does.
            passing: Whether it is tried again: the record is a warning, without traceback.

        Raises:
            BaseException: Only what must pass (cancellation, `KeyboardInterrupt`).
        """
        counted = counted and counts(error)
        origin = Origin(name_of(owner), event, handler, subject, part, counted)
        await report(self, error, owner, origin, passing=passing)

    # -- one registry after the other

    def pin(self) -> Pin:
        """Return a context manager inside which the registry stays the one of its beginning."""
        return Pin(self)

    def pin_live(self) -> Pin:
        """Return a pin of what is live, even inside another pin."""
        return LivePin(self)

    def pinned(self) -> Plans:
        """Return the plans that are pinned here, else those of what is live."""
        pin = Pin.held_here(self)
        return self.live if pin is None or pin.plans is None else pin.plans

    @property
    def older(self) -> list[Plans]:
        """The plans of older registries that pins hold, the oldest first."""
        return list(self._older.values())

    def everywhere(self, event: str) -> bool:
        """Tell whether an event has the live plan inside of every pin, too."""
        return not self._older or self._changes.since(event) <= next(iter(self._older))

    def publish(self, draft: Draft) -> None:
        """Swap the registry for the next one. No await in here: nobody sees half of it."""
        assert draft.before is self.live.registry, "a draft of an older registry"
        changed = draft.changed_plans
        if draft.touches(STEP):
            self._around_steps = draft.entries(STEP)
        if self.live.pins:
            self._older[draft.before.version] = self.live.held()
        if self._older:
            # Only the context knows the pin; so names and emitters ask it, where plans differ. Held
            # by test_who_is_called_does_not_depend_on_the_pins_of_others.
            self._plans = self._pinned
            self._changes.note(draft.after.version, changed)
        gone = self.live.move(draft.after, changed)
        self._emitters.drop(gone)
        # What is still a plan of the newest of the older registries stays there: held by
        # test_a_plan_that_two_pinned_registries_share_retires_with_the_last.
        heir = next(reversed(self._older.values()), None)
        self.forget(gone if heir is None else heir.take(gone))
        if changed is None:
            self._enclosed.probes_changed()
        self.settle()
        self.moved(draft)

    def forget(self, plans: dict[str, Plan | None]) -> None:
        """Retire plans that are in no table any more."""
        self._emitters.drop(plans)
        self._pinned.clear()
        self._leases.retire(plans.values())

    def let_go(self, plans: Plans) -> None:
        """Note that a pin holds the plans of an older registry no more."""
        if not plans.pins and self._older.pop(plans.registry.version, None) is not None:
            if not self._older:
                self._plans = self.live
                self._changes.clear()
            self.forget(plans)
            self._emitters.stop_asking()
        self.settle()

    def settle(self) -> None:
        """Let those look again that wait until calls or pins have ended."""
        self._leases.progress()

    def silence(self, owner: object) -> None:
        """Let the emissions that still run on retired plans skip an owner's handlers."""
        self._leases.silence(owner)

    async def drained(self, registry: Registry, owner: object, spare: AbstractSet[int]) -> None:
        """Wait until nothing runs that may call an owner's code.

        That is emissions on plans with its handlers, the owner's own work that holds an older
        registry, and any other such work if the owner had registered there what it may call.

        Args:
            registry: The last registry that had its entries.
            owner: The owner.
            spare: Ids of tokens of emissions not to wait for: those that the caller is in.
        """
        held = [old for old in self.older if old.registry.version <= registry.version]
        await self._leases.drained(held, owner, spare)


def _ignore(draft: Draft) -> None:
    """Do nothing: no one follows the changes of this bus."""

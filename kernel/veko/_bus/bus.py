"""The bus: an async priority event bus over an immutable registry.

Emitting by name costs one dict lookup and the plan; an event without handlers costs the lookup.
There is no lock, no copy and no look-up per handler. A change of subscriptions swaps the
registry; an emission under way finishes on the plan that it began with.
"""

from __future__ import annotations

import functools
import itertools
import logging
import sys
import weakref
from collections.abc import Callable, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, ExitStack
from types import FrameType
from typing import Any, Final

import anyio

from ..errors import HookTimeout, text_of
from .codegen import FILENAME
from .events import Event, Origin, is_pattern
from .handles import Handle, Subscription
from .pins import Pin, PinnedPlans
from .plans import Emission, Plan, Plans, Step, Token
from .probes import Probe
from .registry import (
    EVENT,
    HOOK,
    PATTERN,
    PROBE,
    WRAP,
    WRAP_EMISSION,
    WRAP_STEP,
    Draft,
    Entry,
    Owner,
    Registry,
)

__all__ = ["EMITTING", "Bus", "Pin", "emissions_of_caller", "hook_entry"]

_log: Final = logging.getLogger("veko")

ERROR_HANDLE = Event(
    "error:handle",
    payload=BaseException,
    returns=True,
    doc="Any error that a handler or a plugin's code raised. The error and its `Origin`.",
)
PLUGIN_ERROR = Event(
    "plugin:error",
    payload=str | None,
    doc="A plugin failed: its name (`None`: the host's own handler) and the error.",
)
PLUGIN_TIMEOUT = Event(
    "plugin:timeout",
    payload=str | None,
    doc="A plugin's handler or step reached its time limit: its name and the error.",
)


async def _nothing(value: Any = None, *args: Any) -> Any:
    return value


async def _none() -> list[Any]:
    return []


class Bus:
    """An async priority event bus; usable alone, without a kernel.

    Attributes:
        registry: What is live now.
        older: Those that somebody holds, the oldest first.
        moved: Called with each draft after it went live; for the kernel.
    """

    def __init__(self) -> None:
        registry = Registry(0, {}, {})
        registry.plans = Plans(self, registry)
        self.registry = registry
        self.moved: Callable[[Draft], None] | None = None
        self._plans: dict[str, Plan | None] = registry.plans
        self._pinned_plans = PinnedPlans(self)
        self.older: list[Registry] = []
        self._leases: list[tuple[Plan, weakref.ref[Token]]] = []
        self._waiting: set[anyio.Event] = set()
        self._emitters: dict[str, functools.partial[Coroutine[Any, Any, Any]]] = {}
        self._reporting: set[int] = set()
        self.arrival = itertools.count(1)
        for event in (ERROR_HANDLE, PLUGIN_ERROR, PLUGIN_TIMEOUT):
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
        self.register(hook_entry(subscription, (next(self.arrival), 0)), subscription)
        return subscription

    def declare(self, event: Event) -> Handle:
        """Declare an event: its payload is checked from now on.

        Raises:
            ConflictError: An event of that name is declared otherwise.
        """
        return self.register(Entry(EVENT, event.name, event, place=(next(self.arrival), 0)))

    def intercept(self, wrap: Callable[[str, Subscription, Callable[..., Any]], Any]) -> Handle:
        """Wrap handlers: `wrap(event, subscription, call)` returns what is called instead.

        It runs once a handler when a plan is made, so it costs nothing where it returns `call`.
        An async wrapper of a sync handler is fine. The first to come is the outermost.
        """
        return self.register(Entry(WRAP, WRAP, wrap, place=(next(self.arrival), 0)))

    def intercept_emission(self, wrap: Callable[[str, Emission], Emission]) -> Handle:
        """Wrap whole emissions: `wrap(event, call)` returns what is called instead.

        It runs for each way of emitting that a plan has (strict or not, `first`, `gather`); the
        `call` of `gather` has a true attribute `at_once`.
        """
        return self.register(
            Entry(WRAP_EMISSION, WRAP_EMISSION, wrap, place=(next(self.arrival), 0))
        )

    def probe(self, make: Callable[[str, Sequence[Subscription]], Probe | None]) -> Handle:
        """Put lines of code around handlers and emissions: `make(event, subscriptions)`.

        For what is to cost next to nothing a call, as tracing and metrics: see `Probe`. It is asked
        when a plan is made, and stands around what interceptors made of the handlers. The first to
        come is the outermost.
        """
        return self.register(Entry(PROBE, PROBE, make, place=(next(self.arrival), 0)))

    def intercept_step(
        self, enclose: Callable[[str, Owner], AbstractContextManager[Any]]
    ) -> Handle:
        """Stand around the steps of the life cycle: `with enclose(step, plugin)`.

        A step is an operation on a plugin (`load`, `unload`, `toggle`, `reload`, `configure`) or,
        within it, a call of one of its functions (`load()`, `activate()`, ...).
        """
        return self.register(Entry(WRAP_STEP, WRAP_STEP, enclose, place=(next(self.arrival), 0)))

    def step(self, step: str, plugin: Owner) -> ExitStack:
        """Return what stands around a step of the life cycle."""
        stack = ExitStack()
        for entry in self.registry.entries(WRAP_STEP):
            stack.enter_context(entry.value(step, plugin))
        return stack

    def register(self, entry: Entry, handle: Handle | None = None) -> Handle:
        """Add one entry of the host's, at once, and return the handle that takes it away."""
        handle = Handle(None) if handle is None else handle
        self.change(add=[entry])
        handle._undo = lambda: self.change(remove=[entry])
        return handle

    def change(self, *, add: Iterable[Entry] = (), remove: Iterable[Entry] = ()) -> None:
        """Make and publish the next registry at once, without asking anybody."""
        draft = Draft(self.registry, self)
        for entry in remove:
            draft.remove(entry)
        for entry in add:
            draft.add(entry)
        self.publish(draft)

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
            if self._plans is self.registry.plans:
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

    async def emit_with(self, registry: Registry, event: str, value: Any, *args: Any) -> Any:
        """Emit strictly with the hooks of a registry that is not live (yet)."""
        plan = registry.plans[event]
        return value if plan is None else await plan.strict(value, *args)

    def first(self, event: str, *args: Any) -> Coroutine[Any, Any, Any]:
        """Ask the handlers one after the other; the first answer that is not `None` ends it.

        A handler that fails is reported and passed over.

        Returns:
            What to await for the answer (that of a `Stop` may be `None`), or `None`.
        """
        plan = self._plans[event]
        return _nothing() if plan is None else plan.first(*args)

    async def ask_in_turn(self, plan: Plan, *args: Any) -> Any:
        """Ask the handlers of a plan one after the other."""
        token = plan.token
        if token is None:  # made before the plan retired, begun after
            now = self._plans[plan.event]
            return None if now is None else await self.ask_in_turn(now, *args)
        try:
            for step in plan.steps:
                try:
                    answer = await step.run(*args)
                except BaseException as error:
                    if await plan.failed(step, error):
                        return error.value  # type: ignore[attr-defined]
                else:
                    if answer is not None:
                        return answer
            return None
        finally:
            del token

    def gather(self, event: str, *args: Any) -> Coroutine[Any, Any, list[Any]]:
        """Ask all handlers at once.

        Returns:
            What to await for their answers in the handlers' order; one that failed is reported
            and left out.
        """
        plan = self._plans[event]
        return _none() if plan is None else plan.gather(*args)

    async def ask_at_once(self, plan: Plan, *args: Any) -> list[Any]:
        """Ask the handlers of a plan at once."""
        token = plan.token
        if token is None:
            now = self._plans[plan.event]
            return [] if now is None else await self.ask_at_once(now, *args)
        reporting = anyio.get_current_task().id in self._reporting
        answers: dict[int, Any] = {}

        async def ask(place: int, step: Step) -> None:
            try:
                answers[place] = await step.run(*args)
            except BaseException as error:
                if await plan.failed(step, error):
                    answers[place] = error.value  # type: ignore[attr-defined]

        try:
            async with anyio.create_task_group() as group:
                for place, step in enumerate(plan.steps):
                    if step.is_async:
                        own = functools.partial(ask, place, step)
                        group.start_soon(self._ask, own, token, reporting)
                    else:
                        await ask(place, step)
            return [answers[place] for place in sorted(answers)]
        finally:
            del token

    async def _ask(self, ask: Callable[[], Any], token: Token | None, reporting: bool) -> None:
        """Ask in a task of its own, which is part of the emission and of what that is part of."""
        task = anyio.get_current_task().id
        if reporting:
            self._reporting.add(task)
        try:
            await ask()
        finally:
            self._reporting.discard(task)
            del token

    # -- failing

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
        who = name or handler or "a handler"
        _log.error("%s failed: %s", who, text_of(error), exc_info=error)
        if task in self._reporting:
            return
        self._reporting.add(task)
        try:
            error = await self.emit("error:handle", error, Origin(name, event, handler, subject))
            if isinstance(error, HookTimeout):
                await self.emit("plugin:timeout", name, error)
            await self.emit("plugin:error", name, error)
        finally:
            self._reporting.discard(task)

    # -- registries

    def pin(self) -> Pin:
        """Return a context manager inside which the registry stays the one of its beginning."""
        return Pin(self)

    def pinned(self) -> Registry:
        """Return the registry that is pinned here, else the one that is live."""
        pin = Pin.held_here(self)
        return self.registry if pin is None else pin.registry

    def publish(self, draft: Draft) -> None:
        """Swap the registry for the next one. No await in here: nobody sees half of it."""
        assert draft.before is self.registry, "a draft of an older registry"
        after = draft.seal()
        self.older.append(self.registry)
        self.registry = after
        self._plans = self._pinned_plans
        self.settle()
        if self.moved is not None:
            self.moved(draft)

    def settle(self) -> None:
        """Retire the older registries that nobody holds any more."""
        older, self.older = self.older, []
        before: dict[str, Plan | None] = {}
        for old, after in zip(older, [*older[1:], self.registry], strict=False):
            if old.pins:
                self.older.append(old)
                before = old.plans
                continue
            for event, plan in old.plans.items():  # which neighbours may share
                kept = after.plans.get(event) is plan or before.get(event) is plan
                if plan is not None and not kept:
                    self.retire(plan)
        self._plans = self._pinned_plans if self.older else self.registry.plans
        for event, emitter in self._emitters.items():
            plan = self._plans.get(event)
            _set(emitter, self.emit, event) if plan is None else _set(emitter, plan.call)
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
        while self._busy(registry, owner, spare):
            event = anyio.Event()
            self._waiting.add(event)
            try:
                await event.wait()
            finally:
                self._waiting.discard(event)

    def _busy(self, registry: Registry, owner: object, spare: AbstractSet[int]) -> bool:
        return any(old.version <= registry.version for old in self.older) or any(
            id(reference()) not in spare
            for plan, reference in self._leases
            if any(step.subscription.owner is owner for step in plan.steps)
        )


_MISSING: Final[Any] = object()


def _set(emitter: functools.partial[Any], function: Callable[..., Any], *args: Any) -> None:
    emitter.__setstate__((function, args, {}, None))  # type: ignore[attr-defined]


def hook_entry(subscription: Subscription, place: tuple[int, int]) -> Entry:
    """Return the registry entry of a subscription.

    Raises:
        VekoError: The event's name is not sound.
    """
    kind = PATTERN if is_pattern(subscription.event) else HOOK
    return Entry(
        kind, subscription.event, subscription, subscription.owner, subscription.priority, place
    )


def emissions_of_caller() -> frozenset[int]:
    """Return the ids of the tokens of the emissions that the caller runs in."""
    frame: FrameType | None = sys._getframe(1)
    tokens: set[int] = set()
    while frame is not None:
        code = frame.f_code
        if code.co_filename == FILENAME or code in EMITTING:
            tokens.add(id(frame.f_locals.get("token")))
        frame = frame.f_back
    return frozenset(tokens)


EMITTING: Final = {
    function.__code__ for function in (Plan._loop, Bus.ask_in_turn, Bus.ask_at_once, Bus._ask)
}

"""Plans: the handlers of an event, made ready to run.

A registry keeps a plan for each event, made at first use. It runs as a loop; one that proves
hot becomes a straight-line function generated for the chain's shape (how many handlers, which
are async, limited or checked), whose code is kept by shape. Generated code costs 1.0-1.2 times
the same calls written out by hand, the loop twice that; generating takes 0.3 ms for five
handlers, so it is done after `HOT` emissions, and never past `LONG` handlers.

An emission holds the plan's token in a local variable while it runs. That makes the
interpreter's own reference count the counter of running emissions, at 2 ns instead of 30, and a
weak reference to the token the signal that the last one has ended.
"""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from ..errors import HookError
from .codegen import MISSING, code_of
from .events import Event, Stop, matches
from .limits import limited, must_pass, on_asyncio, resume_limited
from .probes import Probe, Snippet, enclosed, names_of, texts_of
from .registry import EVENT, HOOK, PROBE, WRAP, WRAP_EMISSION, Registry
from .signature import is_async

if TYPE_CHECKING:
    from .bus import Bus
    from .handles import Subscription

__all__ = ["AtOnce", "Emission", "Plan", "Plans", "Step", "Token"]

HOT: Final = 1000
LONG: Final = 64
DYNAMIC: Final = 4096
Emission = Callable[..., Coroutine[Any, Any, Any]]


class AtOnce(functools.partial[Coroutine[Any, Any, Any]]):
    """An emission whose handlers run at once, as interceptors of emissions get it."""

    at_once = True


class Token:
    """Held by the emissions that run on a plan."""

    __slots__ = ("__weakref__",)


class Step:
    """One handler in a plan.

    Attributes:
        inner: The handler as its interceptors have wrapped it.
        snippets: What probes put around that.
        call: Both in one function.
    """

    __slots__ = (
        "arity", "call", "inner", "is_async", "limit", "plan", "seen", "snippets", "subscription",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        subscription: Subscription,
        inner: Callable[..., Any],
        snippets: tuple[Snippet, ...] = (),
    ) -> None:
        self.plan = plan
        self.subscription = subscription
        self.inner = inner
        self.snippets = snippets
        self.is_async = subscription.is_async if inner is subscription.handler else is_async(inner)
        self.arity = subscription.arity  # None: everything
        self.call = enclosed(inner, snippets, self.arity)
        self.limit = subscription.timeout if self.is_async else None
        self.seen: type = type(None)  # what it last returned: one compare then stands for check()

    async def run(self, *args: Any) -> Any:
        """Call the handler and return what it answers, checked."""
        given = args if self.arity is None else args[: self.arity]
        if not self.is_async:
            answer = self.call(*given)
        elif self.limit is None:
            answer = await self.call(*given)
        else:
            answer = await limited(self.call(*given), self.limit)
        return None if answer is None or self.is_handle(answer) else answer

    def is_handle(self, answer: Any) -> bool:
        """Tell whether a plain def returned a handle, which counts as `None`.

        Raises:
            HookError: It returned a coroutine, which nobody will await.
        """
        if not self.is_async:
            if isinstance(answer, Coroutine):
                answer.close()
                raise HookError(
                    f"{self.subscription.label} is a plain def and returned a coroutine",
                    event=self.plan.event,
                    remedy="Write it as async def: what a def returns is never awaited.",
                )
            return isinstance(answer, _handles())
        return False

    def check(self, answer: Any, value: Any) -> Any:
        """Return what an answer that is not `None` makes of the value of an emission.

        Raises:
            HookError: It is of a type that the event does not take, or a coroutine.
            Stop: It is of the type that ends the chain.
        """
        if self.is_handle(answer):
            return value
        event = self.plan.declared
        if event is not None:
            if event.stops is not None and isinstance(answer, event.stops):
                raise Stop(answer)
            if not event.returns:
                self.seen = type(answer)
                return value
            if not isinstance(answer, self.plan.payload):
                raise HookError(
                    f"{self.subscription.label} returned {type(answer).__name__} where the event "
                    f"carries {getattr(event.payload, '__name__', event.payload)}",
                    event=self.plan.event,
                    remedy="Return a value of that type, or None to leave it as it is.",
                )
        self.seen = type(answer)
        return answer


@functools.cache
def _handles() -> type:
    from .handles import Handle

    return Handle


def _runtime_type(payload: Any) -> Any:
    """The part of an annotation that `isinstance` understands; `object` if there is none."""
    origin = getattr(payload, "__origin__", payload)
    if origin is Any or not isinstance(origin, (type, types.UnionType, tuple)):
        return object
    if isinstance(origin, types.UnionType):
        return tuple(_runtime_type(member) for member in origin.__args__)
    return origin


class Plan:
    """The chain of one event in one registry.

    Attributes:
        call: Runs the chain: `await call(value, *args)`.
        strict: The same, raising what a handler raises.
        first: Asks the handlers one after the other: `await first(*args)`.
        gather: Asks them at once.
    """

    __slots__ = (
        "_around",
        "_calls",
        "_loops",
        "_run",
        "_wrapped",
        "bus",
        "call",
        "declared",
        "event",
        "first",
        "gather",
        "payload",
        "steps",
        "strict",
        "token",
    )

    def __init__(self, bus: Bus, event: str, registry: Registry) -> None:
        declared = registry.get(EVENT, event)
        self.bus = bus
        self.event = event
        self.declared: Event | None = None if declared is None else declared.value
        self.payload = object if self.declared is None else _runtime_type(self.declared.payload)
        self.token: Token | None = Token()
        self._calls = 0
        subscriptions = [entry.value for entry in registry.hooks(event)]
        wrappers = [entry.value for entry in registry.entries(WRAP)]
        probes = _probes(registry, event, subscriptions)
        self.steps: tuple[Step, ...] = tuple(
            Step(self, one, _wrap(wrappers, event, one), _snippets(probes, place))
            for place, one in enumerate(subscriptions)
        )
        around = tuple(probe.emission for probe in probes if probe.emission is not None)
        self._around = around
        self._loops: Emission = enclosed(self._loop, around)
        self.call: Emission = self._loops
        self.strict: Emission = enclosed(functools.partial(self._loop, strict=True), around)
        self.first: Emission = enclosed(functools.partial(bus.ask_in_turn, self), around)
        gather = functools.partial(bus.ask_at_once, self)
        self.gather: Emission = AtOnce(enclosed(gather, around, at_once=True))
        self._wrapped = [entry.value for entry in registry.entries(WRAP_EMISSION)]
        self._run: Emission = functools.partial(self._loops)
        if self._wrapped:
            self.call = self._run
        for wrap in reversed(self._wrapped):
            self.call, self.strict = wrap(event, self.call), wrap(event, self.strict)
            self.first, self.gather = wrap(event, self.first), wrap(event, self.gather)

    async def _loop(self, value: Any = None, *args: Any, strict: bool = False) -> Any:
        token = self.token
        if token is None:  # made before the plan retired, begun after; wrapped already
            plan = self.bus.plan(self.event)
            return value if plan is None else await plan._loop(value, *args, strict=strict)
        try:
            self._calls += 1
            if self._calls == HOT and len(self.steps) <= LONG:
                self._compile()
            for step in self.steps:
                try:
                    answer = await step.run(value, *args)
                    if answer is not None and answer is not value:
                        value = step.check(answer, value)
                except BaseException as error:
                    if await self.failed(step, error, strict):
                        return error.value  # type: ignore[attr-defined]
            return value
        finally:
            del token

    async def failed(self, step: Step, error: BaseException, strict: bool = False) -> bool:
        """Deal with what a handler raised: true if the chain ends with a `Stop`.

        Raises:
            BaseException: It must pass (cancellation, `KeyboardInterrupt`, an error that the
                event names in `stops`), or `strict`.
        """
        if isinstance(error, Stop):
            return True
        stops = None if self.declared is None else self.declared.stops
        if stops is not None and isinstance(error, stops):
            raise error
        trace = error.__traceback__
        # Closing the emission raises GeneratorExit in the plan's own frame, a handler's own
        # comes from a frame below.
        closing = isinstance(error, GeneratorExit) and (trace is None or trace.tb_next is None)
        if (closing and step.is_async) or must_pass(error):
            raise error
        if trace is not None and trace.tb_next is not None:
            error.__traceback__ = trace.tb_next
        fault = step.subscription.fault(error, self.event)
        if strict:
            if fault is error:
                raise error
            raise fault from error
        await self.bus.report(
            fault,
            owner=step.subscription.owner,
            event=self.event,
            handler=step.subscription.label,
        )
        return False

    def _compile(self) -> None:
        events = self.declared
        checked = events is not None and (events.returns or events.stops is not None)
        takes = events is None or events.returns
        steps = tuple(
            (
                s.is_async,
                s.arity,
                s.limit is not None,
                s.seen is not type(None),
                texts_of(s.snippets),
            )
            for s in self.steps
        )
        names: dict[str, Any] = {
            "plan": self,
            "loop": self._loops,
            "alone": False,
            "at_once": False,
            **names_of(self._around),
            "failed": self.failed,
            "modules": sys.modules,
            "on_asyncio": on_asyncio,
            "resume_limited": resume_limited,
            "MISSING": MISSING,
        }
        for i, step in enumerate(self.steps):
            names |= {f"s{i}": step, f"h{i}": step.inner, f"check{i}": step.check}
            names |= names_of(step.snippets, i)
            names[f"type{i}"] = step.seen
        code, given, names["starts"] = code_of(steps, takes, checked, texts_of(self._around))
        run = types.FunctionType(code.replace(), names, "emission", (None, *given))
        self._run.__setstate__((run, (), {}, None))  # type: ignore[attr-defined]
        if not self._wrapped:  # whoever stands around it goes on calling the same partial
            self.call = run
            self.bus.aim(self)

    def retire(self, ended: Callable[[Any], None]) -> weakref.ref[Token] | None:
        """Let no emission begin on this plan any more.

        Args:
            ended: Called when the last emission that runs on it has ended.

        Returns:
            A reference that dies then, or `None` if none runs.
        """
        if self.token is None:
            return None
        reference = weakref.ref(self.token, ended)
        self.token = None
        return reference if reference() is not None else None


def _wrap(wrappers: list[Any], event: str, subscription: Subscription) -> Callable[..., Any]:
    call = subscription.handler
    for wrap in reversed(wrappers):
        call = wrap(event, subscription, call)
    return call


def _probes(registry: Registry, event: str, subscriptions: list[Subscription]) -> list[Probe]:
    """Ask the probes about the plan of an event."""
    if not subscriptions:
        return []
    found = [entry.value(event, subscriptions) for entry in registry.entries(PROBE)]
    return [probe for probe in found if probe is not None]


def _snippets(probes: list[Probe], place: int) -> tuple[Snippet, ...]:
    found = [probe.hooks[place] for probe in probes]
    return tuple(snippet for snippet in found if snippet is not None)


class Plans(dict[str, Plan | None]):
    """The plans of one registry, made at first use; `None` for an event without handlers.

    Names that no handler subscribes to by name may be without end (`user:1`, `user:2`, …): past
    `DYNAMIC` of them they are forgotten and made anew.
    """

    __slots__ = ("bus", "registry")

    def __init__(self, bus: Bus, registry: Registry) -> None:
        super().__init__()
        self.bus = bus
        self.registry = registry

    def __missing__(self, event: str) -> Plan | None:
        if len(self) >= DYNAMIC:
            for name in [n for n in self if not self.registry.all(HOOK, n)]:
                old = self.pop(name)
                if old is not None:
                    self.bus.retire(old)
        plan = Plan(self.bus, event, self.registry)
        found = self[event] = plan if plan.steps else None
        self.bus.aim(plan)
        return found

    def without(self, names: frozenset[str] | None, registry: Registry) -> Plans:
        """Return the plans of the next registry: these without those of some names or patterns."""
        plans = Plans(self.bus, registry)
        if names is not None:
            patterns = [name for name in names if "*" in name]
            for event, plan in self.items():
                if event not in names and not any(matches(p, event) for p in patterns):
                    plans[event] = plan
        return plans

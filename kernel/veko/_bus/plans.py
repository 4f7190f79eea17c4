"""Plans: the handlers of an event, made ready to run.

A plan is made for an event at first use. It runs as a loop; one that proves hot becomes a
straight-line function generated for the chain's shape (how many handlers, which are async, limited
or checked), whose code is kept by shape. Generated code costs 1.0-1.2 times the same calls written
out by hand, the loop twice that; generating takes 0.3 ms for five handlers, so it is done after
`HOT` emissions, and never past `LONG` handlers.

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
from typing import Any, Final, Protocol

import anyio

from ..errors import HookError
from .codegen import FILENAME, MISSING, code_of
from .events import Event, Stop, matches
from .handles import Handle, Subscription
from .limits import limited, must_pass, on_asyncio, resume_limited
from .probes import Probe, Snippet, enclosed, names_of, texts_of
from .registry import EVENT, HOOK, INTERCEPTOR, PROBE, Registry
from .signature import is_async

__all__ = ["EMITTING", "Host", "Plan", "Plans", "Step", "Token"]

HOT: Final = 1000
LONG: Final = 64
DYNAMIC: Final = 4096
Emission = Callable[..., Coroutine[Any, Any, Any]]


class Host(Protocol):
    """What a plan needs of its bus.

    Attributes:
        reporting: Ids of the tasks in which a failure is being reported.
    """

    reporting: set[int]

    def plan(self, event: str) -> Plan | None:
        """The plan of an event here and now."""

    def aim(self, plan: Plan) -> None:
        """Let the emitter of the plan's event call it, if it is the one in use."""

    def retire(self, plan: Plan) -> None:
        """Let no emission begin on a plan any more."""

    async def report(
        self,
        error: BaseException,
        *,
        owner: Any = None,
        event: str | None = None,
        handler: str | None = None,
    ) -> None:
        """Report a failure."""


class Token:
    """Held by the emissions that run on a plan."""

    __slots__ = ("__weakref__",)


class Step:
    """One handler in a plan.

    Attributes:
        inner: The handler as its interceptors have wrapped it.
        snippets: What probes put around that.
        call: Both in one function.
        seen: The type that it last returned: one compare then stands for `check`.
    """

    __slots__ = (
        "arity", "call", "inner", "is_async", "limit", "plan", "seen", "snippets", "subscription",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        subscription: Subscription,
        inner: Callable[..., Any],
        snippets: tuple[Snippet, ...],
    ) -> None:
        self.plan = plan
        self.subscription = subscription
        self.inner = inner
        self.snippets = snippets
        self.is_async = subscription.is_async if inner is subscription.handler else is_async(inner)
        self.arity = subscription.arity
        self.call = enclosed(inner, snippets, self.arity)
        self.limit = subscription.timeout if self.is_async else None
        self.seen: type = type(None)

    async def run(self, *args: Any) -> Any:
        """Call the handler and return what it answers, if it may answer that."""
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
        if not self.is_async and isinstance(answer, Coroutine):
            answer.close()
            raise HookError(
                f"{self.subscription.label} is a plain def and returned a coroutine",
                event=self.plan.event,
                remedy="Write it as async def: what a def returns is never awaited.",
            )
        return not self.is_async and isinstance(answer, Handle)

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
        "_around", "_calls", "call", "declared", "event", "first", "gather", "host", "payload",
        "steps", "strict", "token",
    )  # fmt: skip

    def __init__(self, host: Host, event: str, registry: Registry) -> None:
        declared = registry.get(EVENT, event)
        self.host = host
        self.event = event
        self.declared: Event | None = None if declared is None else declared.value
        self.payload = object if self.declared is None else _runtime_type(self.declared.payload)
        self.token: Token | None = Token()
        self._calls = 0
        subscriptions: list[Subscription] = [entry.value for entry in registry.hooks(event)]
        makers = [entry.value for entry in registry.entries(PROBE)] if subscriptions else []
        probes: list[Probe] = [p for make in makers if (p := make(event, subscriptions))]
        self.steps: tuple[Step, ...] = tuple(
            Step(
                self,
                one,
                _intercepted(registry, event, one),
                tuple(snippet for p in probes if (snippet := p.hooks[place])),
            )
            for place, one in enumerate(subscriptions)
        )
        self._around = around = tuple(p.emission for p in probes if p.emission)
        self.call: Emission = enclosed(self._loop, around)
        self.strict: Emission = enclosed(functools.partial(self._loop, strict=True), around)
        self.first: Emission = enclosed(self._ask_in_turn, around)
        self.gather: Emission = enclosed(self._ask_at_once, around, at_once=True)

    async def _loop(self, value: Any = None, *args: Any, strict: bool = False) -> Any:
        token = self.token
        if token is None:  # made before the plan retired, begun after
            plan = self.host.plan(self.event)
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

    async def _ask_in_turn(self, *args: Any) -> Any:
        token = self.token
        if token is None:
            plan = self.host.plan(self.event)
            return None if plan is None else await plan._ask_in_turn(*args)
        try:
            for step in self.steps:
                try:
                    answer = await step.run(*args)
                except BaseException as error:
                    if await self.failed(step, error):
                        return error.value  # type: ignore[attr-defined]
                else:
                    if answer is not None:
                        return answer
            return None
        finally:
            del token

    async def _ask_at_once(self, *args: Any) -> list[Any]:
        token = self.token
        if token is None:
            plan = self.host.plan(self.event)
            return [] if plan is None else await plan._ask_at_once(*args)
        reporting = anyio.get_current_task().id in self.host.reporting
        answers: dict[int, Any] = {}
        try:
            async with anyio.create_task_group() as group:
                for place, one in enumerate(self.steps):
                    if one.is_async:
                        group.start_soon(
                            self._ask_apart, token, reporting, place, one, args, answers
                        )
                    else:
                        await self._ask(place, one, args, answers)
            return [answers[place] for place in sorted(answers)]
        finally:
            del token

    async def _ask(
        self, place: int, step: Step, args: tuple[Any, ...], answers: dict[int, Any]
    ) -> None:
        try:
            answers[place] = await step.run(*args)
        except BaseException as error:
            if await self.failed(step, error):
                answers[place] = error.value  # type: ignore[attr-defined]

    async def _ask_apart(
        self, token: Token, reporting: bool, place: int, step: Step, *to: Any
    ) -> None:
        """Ask in a task of its own, which is part of the emission and of what that is part of."""
        task = anyio.get_current_task().id
        if reporting:
            self.host.reporting.add(task)
        try:
            await self._ask(place, step, *to)
        finally:
            self.host.reporting.discard(task)
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
        subscription = step.subscription
        fault = subscription.fault(error, self.event)
        if strict:
            if fault is error:
                raise error
            raise fault from error
        await self.host.report(
            fault, owner=subscription.owner, event=self.event, handler=subscription.label
        )
        return False

    def _compile(self) -> None:
        event = self.declared
        shape = tuple(
            (s.is_async, s.arity, s.limit is not None, s.seen is not type(None),
             texts_of(s.snippets))
            for s in self.steps
        )  # fmt: skip
        names: dict[str, Any] = {
            "plan": self, "loop": self.call, "failed": self.failed, "alone": False,
            "at_once": False, "modules": sys.modules, "on_asyncio": on_asyncio,
            "resume_limited": resume_limited, "MISSING": MISSING, **names_of(self._around),
        }  # fmt: skip
        for i, step in enumerate(self.steps):
            names |= {f"s{i}": step, f"h{i}": step.inner, f"check{i}": step.check}
            names |= {f"type{i}": step.seen, **names_of(step.snippets, i)}
        code, given, names["starts"] = code_of(
            shape,
            takes=event is None or event.returns,
            checked=event is not None and (event.returns or event.stops is not None),
            around=texts_of(self._around),
        )
        self.call = types.FunctionType(code.replace(), names, "emission", (None, *given))
        self.host.aim(self)

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

    def calls(self, owner: object) -> bool:
        """Tell whether a handler in it is somebody's."""
        return any(step.subscription.owner is owner for step in self.steps)

    @staticmethod
    def step_of(frame: types.FrameType) -> Step | None:
        """Return the handler that a frame which emits has called and awaits."""
        if frame.f_code.co_filename == FILENAME:
            starts = frame.f_globals["starts"]
            place = sum(start <= frame.f_lineno for start in starts) - 1
            return None if place < 0 else frame.f_globals[f"s{place}"]
        return frame.f_locals.get("step")


EMITTING: Final = {
    function.__code__
    for function in (Plan._loop, Plan._ask_in_turn, Plan._ask_at_once, Plan._ask_apart)
}
"""The code of emissions that is not generated; a frame of it holds the plan's token, too."""


def _intercepted(registry: Registry, event: str, subscription: Subscription) -> Callable[..., Any]:
    call = subscription.handler
    for entry in reversed(registry.entries(INTERCEPTOR)):
        call = entry.value(event, subscription, call)
    return call


class Plans(dict[str, Plan | None]):
    """The plans of one registry, made at first use; `None` for an event without handlers.

    Names that no handler subscribes to by name may be without end (`user:1`, `user:2`, …): past
    `DYNAMIC` of them they are forgotten and made anew.

    Attributes:
        registry: The registry.
        pins: Who holds it.
    """

    __slots__ = ("_host", "pins", "registry")

    def __init__(self, host: Host, registry: Registry) -> None:
        super().__init__()
        self._host = host
        self.registry = registry
        self.pins: set[object] = set()

    def __missing__(self, event: str) -> Plan | None:
        if len(self) >= DYNAMIC:
            for name in [n for n in self if not self.registry.all(HOOK, n)]:
                old = self.pop(name)
                if old is not None:
                    self._host.retire(old)
        plan = Plan(self._host, event, self.registry)
        found = self[event] = plan if plan.steps else None
        self._host.aim(plan)
        return found

    def after(self, registry: Registry, changed: frozenset[str] | None) -> Plans:
        """Return the plans of the next registry: these without those of changed names or patterns.

        Args:
            registry: The next registry.
            changed: The names and patterns; `None` for all.
        """
        plans = Plans(self._host, registry)
        if changed is not None:
            patterns = [name for name in changed if "*" in name]
            for event, plan in self.items():
                if event not in changed and not any(matches(p, event) for p in patterns):
                    plans[event] = plan
        return plans

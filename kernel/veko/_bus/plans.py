"""Plans: the handlers of an event, made ready to run.

A plan is made for an event at first use. It runs as a loop; one that proves hot becomes a
straight-line function generated for the chain's shape (how many handlers, which are async, limited
or checked), whose code is kept by shape. Generated code costs 1.0-1.2 times the same calls written
out by hand, the loop twice that; generating takes 0.3 ms for five handlers, so it is done after
`HOT` emissions, and never past `LONG` handlers.
"""

from __future__ import annotations

import functools
import itertools
import sys
import types
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from .codegen import FILENAME, MISSING, awaited, code_of
from .events import Event, Stop
from .failures import subject_of
from .handles import Subscription
from .limits import (
    Suspended,
    limited,
    must_pass,
    on_asyncio,
    resume_limited,
    suspended,
    task_id,
)
from .local_variables import local_of
from .owners import Owner
from .probes import Probe, enclosed, names_of, texts_of
from .registry import EVENT, INTERCEPTOR, PROBE, Registry
from .step import Step
from .together import together

__all__ = ["EMITTING", "Host", "Plan", "Token"]

HOT: Final = 1000
LONG: Final = 64
Emission = Callable[..., Coroutine[Any, Any, Any]]


class Host(Protocol):
    """What a plan needs of its bus.

    Attributes:
        reporting: Ids of the tasks in which a failure is being reported.
    """

    reporting: set[int]

    def plan(self, event: str) -> Plan | None:
        """The plan of an event here and now."""

    def aim(self, event: str) -> None:
        """Let those that keep what runs an event look again: its plan has become code."""

    async def report(
        self,
        error: BaseException,
        *,
        owner: Owner | str | None = None,
        event: str | None = None,
        handler: str | None = None,
        subject: object = None,
    ) -> None:
        """Report a failure."""


class Token:
    """Held by the emissions that run on a plan."""

    __slots__ = ("__weakref__",)


class Plan:
    """The chain of one event in one registry.

    Attributes:
        call: Runs the chain: `await call(value, *args)`.
        strict: The same, raising what a handler raises.
        first: Asks the handlers one after the other: `await first(*args)`.
        gather: Asks them at once.
        fails_closed: Whether the failure of a handler ends the emission.
        since: The version of the registry that it is made of.
        steps: The handlers.
        token: Held by the emissions that run on the plan; `None` when it is retired.
    """

    __slots__ = (
        "_around", "_calls", "_takes", "call", "declared", "event", "fails_closed",
        "first", "gather", "host", "since", "steps", "strict", "token",
    )  # fmt: skip

    def __init__(self, host: Host, event: str, registry: Registry) -> None:
        declared = registry.get(EVENT, event)
        self.host = host
        self.event = event
        self.since = registry.version
        self.declared: Event[Any] | None = None if declared is None else declared.value
        self.fails_closed = self.declared is not None and self.declared.fails_closed
        self._takes = self.declared is None or self.declared.returns
        self.token: Token | None = Token()
        self._calls = 0
        # All that the registry says is read first: the steps are made of that alone.
        hooks = registry.hooks(event)
        makers = registry.entries(PROBE) if hooks else ()
        wrappers = registry.entries(INTERCEPTOR)[::-1] if hooks else ()
        subscriptions: list[Subscription] = [entry.value for entry in hooks]
        probes: list[Probe] = [p for make in makers if (p := make.value(event, subscriptions))]
        calls: list[Callable[..., Any]] = [one.handler for one in subscriptions]
        for entry in wrappers:  # the first to come is the outermost, so it is the last to wrap
            calls = list(map(entry.value, itertools.repeat(event), subscriptions, calls))
        around_each = [
            tuple(snippet for p in probes if (snippet := p.hooks[index]))
            for index in range(len(subscriptions))
        ]
        step = functools.partial(Step, event, self.declared)
        self.steps: tuple[Step, ...] = tuple(map(step, subscriptions, calls, around_each))
        self._around = around = tuple(p.emission for p in probes if p.emission)
        self.call: Emission = functools.partial(self._loop, False)
        self.strict: Emission = functools.partial(self._loop, True)
        self.first: Emission = functools.partial(self._ask_in_turn, False)
        # Tasks, at 4 µs each, are of no use where no two handlers wait.
        alone = sum(step.is_async for step in self.steps) < 2
        self.gather: Emission = (
            functools.partial(self._ask_in_turn, True) if alone else self._ask_at_once
        )
        if around:
            self.call = enclosed(self.call, around)
            self.strict = enclosed(self.strict, around)
            self.first = enclosed(self.first, around)
            self.gather = enclosed(self.gather, around, at_once=True)

    async def _loop(self, strict: bool, value: Any = None, *args: Any) -> Any:
        # The local variable is what counts: while this runs it holds the plan's token, so the
        # interpreter's own reference count counts the running emissions, at 2 ns each instead of
        # 30 for a counter. The weak reference that `retire` makes dies with the last of them.
        # `del` lets go of it even if a traceback keeps this frame. Held by
        # test_running_calls_of_the_old_drain (tests/kernel/life/test_reload.py) and
        # test_an_emission_whose_error_is_kept_holds_nothing_up.
        token = self.token
        if token is None:  # called before the plan retired, awaited after
            plan = self.host.plan(self.event)
            return value if plan is None else await plan._loop(strict, value, *args)
        try:
            self._calls += 1
            if self._calls == HOT and len(self.steps) <= LONG:
                self._compile()
            takes = self._takes
            for step in self.steps:
                try:
                    # Written out here and in `_ask_in_turn`: a coroutine for each step would cost
                    # as much again.
                    if step.takes_one:
                        answer = step.call(value)
                    else:
                        answer = step.call(*(value, *args)[: step.arity])
                    if step.is_async:
                        limit = step.limit
                        answer = await (
                            answer if limit is None else limited(answer, limit, step.late)
                        )
                    if answer is not None and answer is not value:
                        if answer.__class__ is not step.seen:
                            value = step.check(answer, value)
                        elif takes:
                            value = answer
                except BaseException as error:
                    if isinstance(error, Stop) and not step.observes:
                        return error.value
                    await self.failed(step, error, (value, *args), strict)
            return value
        finally:
            del token

    async def _ask_in_turn(self, everyone: bool, *args: Any) -> Any:
        token = self.token
        if token is None:
            plan = self.host.plan(self.event)
            if plan is None:
                return [] if everyone else None
            return await (plan._ask_at_once(*args) if everyone else plan._ask_in_turn(False, *args))
        answers: list[Any] = []
        try:
            for step in self.steps:
                try:
                    if step.takes_one and args:
                        answer = step.call(args[0])
                    else:
                        answer = step.call(*args[: step.arity])
                    if step.is_async:
                        limit = step.limit
                        answer = await (
                            answer if limit is None else limited(answer, limit, step.late)
                        )
                    elif answer.__class__ is not step.plain and step.returned_handle(answer):
                        answer = None
                except BaseException as error:
                    if not isinstance(error, Stop) or step.observes:
                        await self.failed(step, error, args)
                        continue
                    answer = error.value
                    if not everyone:
                        return answer
                if step.observes:
                    continue
                if everyone:
                    answers.append(answer)
                elif answer is not None:
                    return answer
            return answers if everyone else None
        finally:
            del token

    async def _ask_at_once(self, *args: Any) -> list[Any]:
        token = self.token
        if token is None:
            plan = self.host.plan(self.event)
            return [] if plan is None else await plan._ask_at_once(*args)
        # A task of its own is part of the emission, and of the report that this may be part of.
        reporting = bool(self.host.reporting) and task_id() in self.host.reporting
        answers: dict[int, Any] = {}
        try:
            async with together() as group:
                for index, one in enumerate(self.steps):
                    if one.is_async:
                        group.start_soon(self._ask, token, reporting, index, one, args, answers)
                    else:
                        await self._ask(token, False, index, one, args, answers)
            return [answers[index] for index in sorted(answers)]
        except ExceptionGroup as errors:
            # Where one failure ends the emission it is raised as `emit` raises it: alone.
            if not self.fails_closed:
                raise
            failure = errors.exceptions[0]
        finally:
            del token
        raise failure

    async def _ask(
        self,
        token: Token,
        reporting: bool,
        index: int,
        step: Step,
        args: tuple[Any, ...],
        answers: dict[int, Any],
    ) -> None:
        if reporting:
            self.host.reporting.add(task_id())
        try:
            answer = step.call(*args[: step.arity])
            if step.is_async:
                limit = step.limit
                answer = await (answer if limit is None else limited(answer, limit, step.late))
            elif answer.__class__ is not step.plain and step.returned_handle(answer):
                answer = None
            if not step.observes:
                answers[index] = answer
        except BaseException as error:
            if not isinstance(error, Stop) or step.observes:
                await self.failed(step, error, args)
            else:
                answers[index] = error.value
        finally:
            if reporting:
                self.host.reporting.discard(task_id())
            del token

    async def failed(
        self, step: Step, error: BaseException, args: Sequence[object], strict: bool = False
    ) -> None:
        """Report what a handler raised, if it counts as the handler's failure.

        Args:
            step: The handler.
            error: What it raised; `Stop` only if it observes.
            args: What it was called with; the record names the request among it.
            strict: Raise the failure instead of reporting it.

        Raises:
            BaseException: The error itself, if it must pass; with `strict`, or once it is reported
                if the event fails closed, the failure, unless the handler observes.
        """
        if step.observes and isinstance(error, Stop):
            return  # an answer, and what it answers is ignored
        if self._passes(step, error):
            raise error
        trace = error.__traceback__
        if trace is not None and trace.tb_next is not None:
            error.__traceback__ = trace.tb_next  # without the plan's own frame
        subscription = step.subscription
        fault = subscription.fault(error, self.event)
        ends = (strict or self.fails_closed) and not step.observes
        if not (strict and ends):
            await self.host.report(
                fault,
                owner=subscription.owner,
                event=self.event,
                handler=subscription.label,
                subject=subject_of(args),
            )
        if ends:
            if fault is error:
                raise error
            raise fault from error

    def _passes(self, step: Step, error: BaseException) -> bool:
        """Tell whether an error is not a failure of the handler that raised it.

        That is cancellation, `KeyboardInterrupt`, an error that the event names in `stops` (unless
        the handler observes, and so has no answer to give), and the closing of the emission.
        """
        stops = None if self.declared is None else self.declared.stops
        if stops is not None and isinstance(error, stops) and not step.observes:
            return True
        if isinstance(error, GeneratorExit) and step.is_async:
            # Closing the emission raises GeneratorExit where it is suspended, and then in the
            # plan's own frame: the traceback ends there. A handler's own comes from a frame below.
            # Reporting the first kind would await in a closing coroutine, a RuntimeError. Held by
            # test_a_closed_emission_reaches_the_probe (closing) and
            # test_a_hot_event_whose_handlers_begin_to_fail (a handler's own).
            trace = error.__traceback__
            if trace is None or trace.tb_next is None:
                return True
        return must_pass(error)

    def _compile(self) -> None:
        event = self.declared
        shape = tuple(
            (s.is_async, s.arity, s.limit is not None, s.seen is not type(None), s.observes,
             texts_of(s.snippets))
            for s in self.steps
        )  # fmt: skip
        names: dict[str, Any] = {
            "plan": self, "loop": self.call, "failed": self.failed, "Stop": Stop, "alone": False,
            "at_once": False, "modules": sys.modules, "on_asyncio": on_asyncio,
            "resume_limited": resume_limited, "suspended": suspended, "Suspended": Suspended,
            "filter": filter, "Coroutine": types.CoroutineType, "awaited": awaited,
            "MISSING": MISSING, **names_of(self._around),
        }  # fmt: skip
        for i, step in enumerate(self.steps):
            names |= {f"s{i}": step, f"h{i}": step.inner, f"check{i}": step.check}
            names |= {f"type{i}": step.seen, **names_of(step.snippets, i)}
        code, given, names["starts"] = code_of(
            shape,
            takes=self._takes,
            checked=event is not None and (event.returns or event.stops is not None),
            around=texts_of(self._around),
        )
        self.call = types.FunctionType(code.replace(), names, "emission", (None, *given))
        self.host.aim(self.event)

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
        """Tell whether one of its handlers belongs to an owner."""
        return any(step.subscription.owner is owner for step in self.steps)

    def silence(self, owner: object) -> None:
        """Let what still runs on it skip an owner's handlers.

        It costs emissions nothing: a plan has steps and, if it is compiled, globals of its own.
        """
        names = getattr(self.call, "__globals__", {})
        for i, step in enumerate(self.steps):
            if step.subscription.owner is owner:
                step.inner = step.call = _skipped if step.is_async else _skip
                if names.get(f"s{i}") is step:
                    names[f"h{i}"] = step.inner

    @staticmethod
    def step_of(frame: types.FrameType) -> Step | None:
        """Return the handler that the frame of an emission has called and awaits."""
        if frame.f_code.co_filename == FILENAME:
            starts = frame.f_globals["starts"]
            index = sum(start <= frame.f_lineno for start in starts) - 1
            return None if index < 0 else frame.f_globals[f"s{index}"]
        # `_ask_at_once` awaits no handler itself: it names them otherwise.
        step: Step | None = local_of(frame, "step")
        return step


EMITTING: Final = {
    function.__code__ for function in (Plan._loop, Plan._ask_in_turn, Plan._ask_at_once, Plan._ask)
}
"""The code of emissions that is not generated; a frame of it holds the plan's token, too."""


def _skip(*args: Any) -> None:
    """Stand for a `def` handler that is not called any more."""


async def _skipped(*args: Any) -> None:
    """Stand for an `async def` handler that is not called any more."""

"""The recorder: interceptors that write down what is emitted, which hooks ran, and when.

A hook call costs a look at the clock, a setting of the context variable and three entries on the
tape; an emission a coroutine, a record, two looks at the clock and two settings (figures:
`benchmarks/tracing.py`). What is opened in a frame is closed in it, whatever comes: an answer, an
error, a cancellation, a coroutine that is closed from somewhere else. Nothing here waits, and
nothing raises.

The tape is bounded. Past its limit nothing is recorded until it was read; what was not recorded is
counted.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from contextvars import ContextVar
from random import random
from typing import TYPE_CHECKING, Any, Final

from veko import Stop

from ._context import SPAN_KEY, Context, LiveSpan, placed, remote_of
from ._errors import note
from ._hook_code import hook_code, named
from ._records import (
    PARENT,
    SEGMENT,
    SITE,
    Dropped,
    Own,
    Record,
    Segment,
    Unsampled,
    clock,
    more_of,
    offset_of,
    segment_of,
    trace_of,
)
from ._sites import SERVER, Site, emission_site, hook_site

if TYPE_CHECKING:
    from veko import Subscription

__all__ = ["Recorder"]

_CANCELLED: Final = ("CancelledError", "Cancelled", "GeneratorExit")

Emission = Callable[..., Any]


class Recorder:
    """Writes the tape.

    Args:
        variable: What holds the place: the variable of OpenTelemetry's runtime context.
        ratio: How much of the traces that begin here is recorded, by event; -1 for never, not
            even as a part of another trace.
        core: Whether hooks of core plugins are recorded too; an event that only they hear is no
            emission then.
        limit: Entries that the tape may have.
        sampler: Decides instead of the ratio, if the application has one of its own.

    Attributes:
        tape: Record, site, time, for each span that has ended.
        lost: Spans that were not recorded because the tape was full.
        thin: Whether many traces are not recorded: hooks are then wrapped in a way that makes
            this cheaper, and recording a little dearer.
    """

    def __init__(
        self,
        variable: ContextVar[Any],
        ratio: Callable[[str], float],
        *,
        core: bool = False,
        limit: int = 300_000,
        thin: bool = False,
        sampler: Callable[[Site, Context], bool] | None = None,
    ) -> None:
        self.tape: list[Any] = []
        self.lost = 0
        self.thin = thin
        self.variable = variable
        self._ratio = ratio
        self._core = core
        self._limit = limit
        self._event: str | None = None
        self._whole = True
        self._hooks = 0
        self._sampler = sampler

    # -- interceptors

    def wrap_hook(
        self, event: str, subscription: Subscription, call: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Stand around a handler; see `Bus.intercept`."""
        if self._event != event or self._whole:
            self._event, self._whole, self._hooks = event, False, 0
        owner = subscription.owner
        quiet = not self._core and getattr(getattr(owner, "plugin", None), "core", False)
        if quiet or self._ratio(event) < 0 or getattr(owner, "name", None) == "tracing":
            return call
        self._hooks += 1
        is_async = (
            subscription.is_async
            if call is subscription.handler
            else inspect.iscoroutinefunction(call)
        )
        code, inner = hook_code(subscription.arity, is_async, self.thin)
        names: dict[str, Any] = {
            "call": call,
            "site": hook_site(event, subscription),
            "get": self.variable.get,
            "put": self.variable.set,
            "add": self.tape.append,
            "clock": clock,
            "enter": self._enter,
            "failed": self._failed,
            "Unsampled": Unsampled,
        }
        if inner is not None:
            names["recorded"] = types.FunctionType(inner.replace(), names)
        made = types.FunctionType(named(code, call, subscription.arity), names)
        if inner is not None:
            made.returns_coroutine = True  # type: ignore[attr-defined]
        return made

    def wrap_emission(self, event: str, call: Emission) -> Emission:
        """Stand around the emissions of an event; see `Bus.intercept_emission`.

        It is asked after `wrap_hook` was for each handler of the event.
        """
        ratio, self._whole = self._ratio(event), True
        if ratio < 0 or self._event != event or not self._hooks:
            return call
        get, put = self.variable.get, self.variable.set
        add, tape, limit = self.tape.append, self.tape, self._limit
        begin, ended = self.begin, self.ended
        site = emission_site(event)
        always = ratio >= 1 and self._sampler is None
        kind = Own if getattr(call, "at_once", False) else tuple

        async def emission(value: Any = None, *args: Any) -> Any:
            outer = get()
            held = outer.__class__
            if held is Unsampled:
                return await call(value, *args)
            if held is tuple and len(tape) < limit:
                time = clock()
                record = [outer[0][0], outer, site, time, time, 0, None]
            elif always and not outer and len(tape) < limit:  # nothing is around it
                time = clock()
                record = [[None, 0, None, None, None], None, site, time, time, 0, None]
            else:
                found = begin(outer, site, ratio)
                if found.__class__ is not list:
                    return await _unrecorded(put, found, outer, call, value, *args)
                record = found
            put((record, None) if kind is tuple else Own((record, None)))
            try:
                # A call without star is 50 ns cheaper, and most events carry one value.
                answer = await (call(value, *args) if args else call(value))
            except BaseException as error:
                ended(record, outer, error)
                raise
            add(record)
            add(None)
            add(clock())
            put(outer)
            return answer

        return emission

    # -- what is rarer

    def begin(self, outer: Any, site: Site, ratio: float) -> Any:
        """Return the record of what begins below whatever the variable holds.

        Returns:
            The record, or an `Unsampled` to put into the variable.
        """
        if isinstance(outer, tuple):
            return self.open(site, outer[0][SEGMENT], outer)
        if isinstance(outer, Dropped):
            if len(self.tape) >= self._limit:
                self.lost += 1
                return outer
            return self.open(site, segment_of(), None)
        if isinstance(outer, Unsampled):
            return outer
        found = self._below(outer, site, ratio)
        return found if isinstance(found, Unsampled) else self.open(site, *found)

    def open(self, site: Site, segment: Segment, parent: Any) -> Any:
        """Return a record of a segment; `Dropped` if the tape is full."""
        if len(self.tape) >= self._limit:
            self.lost += 1
            return Dropped()
        time = clock()
        return [segment, parent, site, time, time, 0, None]

    def _below(self, outer: Context, site: Site, ratio: float) -> Any:
        """Find segment and parent below an OpenTelemetry context, or that it is not recorded."""
        if not outer:
            if not self._wanted(site, outer, ratio):
                return Unsampled()
            return segment_of(), None
        span: Any = outer.get(SPAN_KEY)
        if isinstance(span, LiveSpan):
            record = span.place[0]
            above: Segment = record[SEGMENT]
            segment = segment_of(trace_of(above), above[1], outer, above[4])
            segment[2] = offset_of(above)
            return segment, span.place
        found = remote_of(span)
        if found is None:
            if not self._wanted(site, outer, ratio):
                return Unsampled(outer)
            return segment_of(base=outer), None
        trace, number, sampled, state = found
        if not sampled:
            return Unsampled(outer)
        segment = segment_of(trace, number, outer, state)
        inside = placed(outer)
        if inside is not None and trace_of(inside[0][SEGMENT]) == trace:
            segment[2] = offset_of(inside[0][SEGMENT])
        return segment, None

    def _wanted(self, site: Site, outer: Context, ratio: float) -> bool:
        if self._sampler is not None and ratio >= 1:
            return self._sampler(site, outer)
        return ratio >= 1 or random() < ratio

    def _enter(self, outer: Any, site: Site) -> Any:
        """Enter a hook where the variable does not hold a plain place; `None`: not recorded."""
        if isinstance(outer, Own):
            record = outer[0]
            more_of(record, site).begin = clock()
            place: Any = Own((record, site))
        elif isinstance(outer, Dropped):
            self.lost += 1
            return None
        else:  # a handler before this one attached a context of OpenTelemetry and left it there
            inside = placed(outer) if isinstance(outer, Context) else None
            if inside is None:
                return None
            record = inside[0]
            more_of(record, site).begin = clock()
            place = Own((record, site))
        self.variable.set(place)
        return record

    def _failed(self, record: Record, site: Site, error: BaseException) -> None:
        """End a hook that raised."""
        self.tape += (record, site, clock())
        self._note(record, site, error)
        here = self.variable.get()
        if isinstance(here, tuple) and here[0] is record:
            self.variable.set(Own((record, site)))

    def ended(self, record: Record, outer: Any, error: BaseException | None = None) -> None:
        """End what `begin` began, and put back what the variable held."""
        self.tape += (record, None, clock())
        if error is not None:
            self._note(record, None, error)
        here = self.variable.get()
        # A coroutine may be closed from anywhere; what the variable holds there is not ours.
        if not isinstance(error, GeneratorExit) or (isinstance(here, tuple) and here[0] is record):
            self.variable.set(outer)

    def request_failed(self, error: BaseException) -> None:
        """Note an error that was answered on the span of its request."""
        held = self.variable.get()
        if not isinstance(held, tuple):
            return
        record: Record = held[0]
        while record[PARENT] is not None:
            record = record[PARENT][0]
        if record[SITE].kind == SERVER:
            note(more_of(record, None), record[SEGMENT], error)

    def _note(self, record: Record, site: Site | None, error: BaseException) -> None:
        """Write down how a span failed; its stack only once, where it came up."""
        more = more_of(record, site)
        if isinstance(error, Stop):
            more.outcome = "stop"
        elif type(error).__name__ in _CANCELLED and not isinstance(error, Exception):
            more.outcome = "cancelled"
        else:
            note(more, record[SEGMENT], error)


async def _unrecorded(
    put: Callable[[Any], Any], found: Any, outer: Any, call: Emission, *args: Any
) -> Any:
    """Emit where nothing is recorded, and let those below know."""
    put(found)
    try:
        return await call(*args)
    finally:
        put(outer)

"""The recorder: a probe that writes down what is emitted, which hooks ran, and when.

A hook call costs a setting of the context variable, a look at the clock and two entries in the
record of its emission; an emission that record, a look at the clock and a setting, since it ends
with its last hook; one below a trace that is not recorded a look at the variable, and its hooks a
comparison each (figures: `benchmarks/tracing.py`). What is opened in a frame is closed in it,
whatever comes: an answer, an error, a cancellation, a coroutine that is closed from somewhere else.
Nothing here waits, and nothing raises.

The tape is bounded. Past its limit nothing is recorded until it was read; what was not recorded is
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from random import random
from typing import TYPE_CHECKING, Any, Final

from veko import Stop
from veko.extend import Probe, Snippet

from .context import SPAN_KEY, Context, LiveSpan, placed, remote_of
from .errors import note
from .records import (
    ENDS,
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
    unsampled,
)
from .sites import SERVER, Site, emission_site, hook_site

if TYPE_CHECKING:
    from veko import Subscription

__all__ = ["Recorder"]

_CANCELLED: Final = ("CancelledError", "Cancelled", "GeneratorExit")

MANY: Final = 128
"""Records that are much on the tape."""
EMISSION: Final = Snippet(
    before="""\
tr_outer = tr_get()
if tr_outer.__class__ is tr_unsampled: tr_record = None
else:
 if tr_outer.__class__ is tuple and len(tr_tape) < tr_limit:
  tr_record = [tr_outer[0][0], tr_outer, tr_here[at_once], tr_clock(), 0, None]
 elif tr_draws and not tr_outer and len(tr_tape) < tr_limit:
  if tr_always or tr_random() < tr_ratio:
   tr_record = [[None, 0, None, None, None], None, tr_here[at_once], tr_clock(), 0, None]
  else:
   tr_record = None
   tr_put(tr_unsampled())
 else: tr_record = tr_begin(tr_outer, tr_here[at_once], tr_ratio)
 if tr_record is not None:
  tr_add = tr_record.append
  if alone: tr_put((tr_record, None))""",
    # It has ended when the last of its hooks had.
    after="""\
if tr_record is not None:
 tr_add(tr_record[-2] if len(tr_record) > tr_ends else tr_clock())
 tr_keep(tr_record)
 if len(tr_tape) > tr_many: tr_much()
 tr_put(tr_outer)
elif tr_outer.__class__ is not tr_unsampled: tr_put(tr_outer)""",
    failed="tr_leave(tr_record, tr_outer, error)",
)
HOOK: Final = Snippet(
    alone="tr_record, tr_add = tr_find(tr_site$)",
    before="if tr_record is not None: tr_put((tr_record, tr_site$))",
    after="if tr_record is not None: tr_add(tr_clock()); tr_add(tr_site$)",
    failed="if tr_record is not None: tr_failed(tr_record, tr_site$, error)",
    resumed="if tr_record is not None: tr_add(tr_clock()); tr_add(None)",
)
QUIET: Final = Snippet(
    alone="tr_record, tr_add = tr_find(None)",
    before="if tr_record is not None: tr_put((tr_record, None))",
    after=HOOK.resumed,
    failed=HOOK.resumed,
    resumed=HOOK.resumed,
)
"""Around a hook that makes no span: its time is nobody's, what it does is no other hook's."""


class Recorder:
    """Writes the tape.

    Args:
        variable: What holds the place: the variable of OpenTelemetry's runtime context.
        ratio: How much of the traces that begin here is recorded, by event; -1 for never, not
            even as a part of another trace.
        core: Whether hooks of core plugins are recorded too; an event that only they hear is no
            emission then.
        limit: Spans that the tape may have; twice as many where few and many hooks take turns.
        sampler: Decides instead of the ratio, if the application has one of its own.

    Attributes:
        tape: The records that have ended.
        lost: Spans that were not recorded because the tape was full.
        variable: What holds the place.
        limit: Spans that the tape may have, about.
        much: Called when there is much on the tape.
    """

    def __init__(
        self,
        variable: ContextVar[Any],
        ratio: Callable[[str], float],
        *,
        core: bool = False,
        limit: int = 100_000,
        sampler: Callable[[Site, Context], tuple[bytes, bool]] | None = None,
    ) -> None:
        self.tape: list[Record] = []
        self.lost = 0
        self.much: Callable[[], object] = int  # nobody reads it yet
        self.variable = variable
        self._ratio = ratio
        self._core = core
        self.limit = limit
        self._sampler = sampler

    def probe(self, event: str, subscriptions: Sequence[Subscription]) -> Probe | None:
        """Stand around the emissions of an event and its handlers; see `Bus.probe`."""
        ratio = self._ratio(event)
        heard = [not self._is_quiet(one) for one in subscriptions]
        if ratio < 0 or not any(heard):
            return None
        shared = {
            "tr_get": self.variable.get,
            "tr_put": self.variable.set,
            "tr_clock": clock,
        }
        hooks = {**shared, "tr_find": self._find, "tr_failed": self._failed}
        emission = {
            **shared,
            "tr_unsampled": Unsampled,
            "tr_tape": self.tape,
            "tr_limit": self._most(1 + sum(heard)),
            "tr_keep": self.tape.append,
            "tr_many": MANY,
            "tr_much": self._tell_much,
            "tr_here": [emission_site(event, sum(heard), at_once=one) for one in (False, True)],
            "tr_ends": ENDS,
            "tr_draws": self._sampler is None,
            "tr_random": random,
            "tr_always": self.always(ratio),
            "tr_ratio": ratio,
            "tr_begin": self._begin,
            "tr_leave": self._leave,
        }
        return Probe(
            EMISSION._replace(names=emission),
            [
                HOOK._replace(names={**hooks, "tr_site$": hook_site(event, one)})
                if told
                else QUIET._replace(names=hooks)
                for one, told in zip(subscriptions, heard, strict=True)
            ],
        )

    def always(self, ratio: float) -> bool:
        """Tell whether all traces of a ratio are recorded, without asking anybody."""
        return ratio >= 1 and self._sampler is None

    def _most(self, spans: int) -> int:
        """Return how many records of so many spans the tape may have."""
        return -(-self.limit // spans)

    def _is_quiet(self, subscription: Subscription) -> bool:
        owner = subscription.owner
        core = getattr(getattr(owner, "plugin", None), "core", False)
        return (core and not self._core) or getattr(owner, "name", None) == "tracing"

    # -- what is rarer

    def _begin(self, outer: Any, site: Site, ratio: float) -> Record | None:
        """Begin an emission where the variable does not hold a plain place; `None`: unrecorded."""
        found = self.begin(outer, site, ratio)
        if isinstance(found, Unsampled):
            self.variable.set(found)
            return None
        record: Record = found
        return record

    def _leave(self, record: Record | None, outer: Any, error: BaseException) -> None:
        """End an emission that raised."""
        if record is not None:
            self.ended(record, outer, error)
        elif not isinstance(error, GeneratorExit):  # what a closed one leaves may be elsewhere
            self.variable.set(outer)

    def _find(self, site: Site | None) -> tuple[Record | None, Callable[[Any], None] | None]:
        """Find the record of the emission that a hook is called in, and what adds to it."""
        outer = self.variable.get()
        if not isinstance(outer, tuple):
            # A handler before this one may have left a context of OpenTelemetry attached.
            inside = placed(outer) if isinstance(outer, Context) else None
            if inside is None:
                return None, None
            outer = inside
        record: Record = outer[0]
        own = isinstance(outer, Own) or record[SITE].at_once
        if own and site is not None:
            more_of(record, site).begin = clock()
        return record, record.append

    def begin(self, outer: Any, site: Site, ratio: float) -> Any:
        """Return the record of what begins below whatever the variable holds.

        Returns:
            The record, or an `Unsampled` to put into the variable.
        """
        if isinstance(outer, tuple):
            return self.open(site, outer[0][SEGMENT], outer)
        if isinstance(outer, Dropped):
            if len(self.tape) >= self._most(site.spans):
                self.lost += site.spans
                return outer
            return self.open(site, segment_of(), None)
        if isinstance(outer, Unsampled):
            return outer
        found = self._below(outer, site, ratio)
        return found if isinstance(found, Unsampled) else self.open(site, *found)

    def open(self, site: Site, segment: Segment, parent: Any) -> Any:
        """Return a record of a segment; `Dropped` if the tape is full."""
        if len(self.tape) >= self._most(site.spans):
            self.lost += site.spans
            return Dropped()
        return [segment, parent, site, clock(), 0, None]

    def _below(self, outer: Context, site: Site, ratio: float) -> Any:
        """Find segment and parent below an OpenTelemetry context, or that it is not recorded."""
        if not outer:
            return self._begun(site, outer, ratio)
        span: Any = outer.get(SPAN_KEY)
        if isinstance(span, LiveSpan):
            record = span.place[0]
            above: Segment = record[SEGMENT]
            segment = segment_of(trace_of(above), above[1], outer, above[4])
            segment[2] = offset_of(above)
            return segment, span.place
        found = remote_of(span)
        if found is None:
            return self._begun(site, outer, ratio)
        trace, number, sampled, state = found
        if not sampled:
            return unsampled(outer)
        segment = segment_of(trace, number, outer, state)
        inside = placed(outer)
        if inside is not None and trace_of(inside[0][SEGMENT]) == trace:
            segment[2] = offset_of(inside[0][SEGMENT])
        return segment, None

    def _begun(self, site: Site, outer: Context, ratio: float) -> Any:
        """Begin a trace: its segment, or that it is not recorded."""
        trace: bytes | None = None
        if self._sampler is not None and ratio >= 1:
            trace, wanted = self._sampler(site, outer)
        else:
            wanted = ratio >= 1 or random() < ratio
        base = outer or None
        return (segment_of(trace, base=base), None) if wanted else unsampled(base, trace)

    def _failed(self, record: Record, site: Site, error: BaseException) -> None:
        """End a hook that raised."""
        record += (clock(), site)
        self._note(record, site, error)
        here = self.variable.get()
        if isinstance(here, tuple) and here[0] is record:
            self.variable.set(Own((record, site)))

    def ended(self, record: Record, outer: Any, error: BaseException | None = None) -> None:
        """End what `begin` began, and put back what the variable held."""
        record.append(clock())
        self.keep(record)
        if error is not None:
            self._note(record, None, error)
        here = self.variable.get()
        # A coroutine may be closed from anywhere; what the variable holds there is not ours.
        if not isinstance(error, GeneratorExit) or (isinstance(here, tuple) and here[0] is record):
            self.variable.set(outer)

    def keep(self, record: Record) -> None:
        """Put a record on the tape."""
        self.tape.append(record)
        if len(self.tape) > MANY:
            self.much()

    def _tell_much(self) -> None:
        self.much()

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

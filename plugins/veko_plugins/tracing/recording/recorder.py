"""The recorder: a probe that writes down what is emitted, which hooks run, and when.

Cost (`benchmarks/tracing.py`): a hook sets the context variable, reads the clock and appends two
entries to the record of its emission. An emission makes that record, reads the clock and sets the
variable twice; its end is the end of its last hook. In a trace that is not recorded, an emission
reads the variable, and each hook makes one comparison.
Promise: a span that is opened in a frame is closed in that frame, after an answer, an error, a
cancellation, or a coroutine that is closed from somewhere else. Nothing here waits or raises. The
tape is bounded: while it is full, nothing is recorded, and what was not recorded is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from random import random
from typing import TYPE_CHECKING, Any, Final

from veko import Stop
from veko.extend import Call, Probe, Snippet

from .context import SPAN_KEY, Context, LiveSpan, position_in, remote_of
from .errors import note_error
from .records import (
    ENDS,
    PARENT,
    SEGMENT,
    SITE,
    Dropped,
    Record,
    Segment,
    TimedPosition,
    Unsampled,
    clock,
    details_of,
    offset_of,
    segment_of,
    trace_of,
    unsampled,
)
from .sites import SERVER, Site, emission_site, hook_site, middleware_site

if TYPE_CHECKING:
    from veko import Subscription

__all__ = ["HIGH_WATER", "Recorder"]

_CANCELLED: Final = ("CancelledError", "Cancelled", "GeneratorExit")

HIGH_WATER: Final = 128
"""Records on the tape from which on its reader is woken up."""

# The code below is pasted into the generated plan of an event, where a call would cost as much as
# all the rest. The two common cases, below a position and at the start of a trace that is sampled
# by ratio, are written out; all others go to `_begin`. `__class__ is` is used because `isinstance`
# is a call. test_compiled_plans_and_loops_alike compares these lines with the plain functions.
EMISSION: Final = Snippet(
    before="""\
tr_outer = tr_get()
if tr_outer.__class__ is tr_unsampled: tr_record = None
else:
 if tr_outer.__class__ is tuple and len(tr_tape) < tr_limit:
  tr_record = [tr_outer[0][0], tr_outer, tr_sites[at_once], tr_clock(), 0, None]
 elif tr_draws and not tr_outer and len(tr_tape) < tr_limit:
  if tr_always or tr_random() < tr_ratio:
   tr_record = [[None, 0, None, None, None], None, tr_sites[at_once], tr_clock(), 0, None]
  else:
   tr_record = None
   tr_put(tr_unsampled())
 else: tr_record = tr_begin(tr_outer, tr_sites[at_once], tr_ratio)
 if tr_record is not None:
  tr_add = tr_record.append
  if alone: tr_put((tr_record, None))""",
    # The end of the last hook is taken as the end of the emission, which saves a reading of the
    # clock; nothing runs between the two.
    after="""\
if tr_record is not None:
 tr_add(tr_record[-2] if len(tr_record) > tr_ends else tr_clock())
 tr_keep(tr_record)
 if len(tr_tape) > tr_high_water: tr_wake_reader()
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
UNRECORDED: Final = Snippet(
    alone="tr_record, tr_add = tr_find(None)",
    before="if tr_record is not None: tr_put((tr_record, None))",
    after=HOOK.resumed,
    failed=HOOK.resumed,
    resumed=HOOK.resumed,
)
"""Around a hook that makes no span: its time is in no span of a hook, nor is what it emits."""


class Recorder:
    """Writes the tape.

    Args:
        variable: The context variable that holds the current position in a trace: the variable of
            OpenTelemetry's runtime context.
        ratio: Returns the share of traces beginning with an event that is recorded; -1: the event
            is never recorded, not even as a part of another trace.
        core: Whether hooks of core plugins are recorded too. If not, an event that has only such
            hooks makes no span.
        limit: About how many spans the tape may hold; up to twice as many if emissions with few
            and with many hooks alternate.
        sampler: The sampler of the application, which decides instead of a ratio of 1.

    Attributes:
        tape: The records that have ended, in the order of their ends.
        dropped: How many spans were not recorded because the tape was full.
        variable: See above.
        limit: See above.
        on_high_water: Called when there are more than `HIGH_WATER` records on the tape.
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
        self.dropped = 0
        self.on_high_water: Callable[[], object] = int  # does nothing until there is a reader
        self.variable = variable
        self._ratio = ratio
        self._core = core
        self.limit = limit
        self._sampler = sampler

    def probe(self, event: str, subscriptions: Sequence[Subscription]) -> Probe | None:
        """Return the code around the emissions of an event and its handlers; see `Bus.probe`."""
        call = subscriptions[0] if subscriptions else None
        if isinstance(call, Call):
            return self._around_call(call)
        ratio = self._ratio(event)
        recorded = [self._is_recorded(one) for one in subscriptions]
        if ratio < 0 or not any(recorded):
            return None
        shared = {
            "tr_get": self.variable.get,
            "tr_put": self.variable.set,
            "tr_clock": clock,
        }
        hooks = {**shared, "tr_find": self._find, "tr_failed": self._failed}
        sites = [emission_site(event, sum(recorded), concurrent=one) for one in (False, True)]
        emission = shared | self._emission(sites, ratio)
        return Probe(
            EMISSION._replace(names=emission),
            [
                HOOK._replace(names={**hooks, "tr_site$": hook_site(event, one)})
                if makes_span
                else UNRECORDED._replace(names=hooks)
                for one, makes_span in zip(subscriptions, recorded, strict=True)
            ],
        )

    def _emission(self, sites: Sequence[Site], ratio: float) -> dict[str, object]:
        """Return the names of the code around emissions.

        Args:
            sites: The site of an emission whose handlers run in turn, and of one side by side.
            ratio: The share of traces beginning with it that is recorded.
        """
        return {
            "tr_unsampled": Unsampled,
            "tr_tape": self.tape,
            "tr_limit": self._most_records(sites[0].spans),
            "tr_keep": self.tape.append,
            "tr_high_water": HIGH_WATER,
            "tr_wake_reader": self._wake_reader,
            "tr_sites": sites,
            "tr_ends": ENDS,
            "tr_draws": self._sampler is None,
            "tr_random": random,
            "tr_always": self.always(ratio),
            "tr_ratio": ratio,
            "tr_begin": self._begin,
            "tr_leave": self._leave,
        }

    def _around_call(self, call: Call) -> Probe | None:
        """Return the code around a middleware; other calls have no span of their own."""
        ratio = self._ratio(call.event)
        if call.kind != "middleware" or ratio < 0 or not self._is_recorded(call):
            return None
        names = {"tr_get": self.variable.get, "tr_put": self.variable.set, "tr_clock": clock}
        site = middleware_site(call)
        return Probe(EMISSION._replace(names=names | self._emission((site, site), ratio)), ())

    def always(self, ratio: float) -> bool:
        """Return whether all traces with this ratio are recorded, without asking a sampler."""
        return ratio >= 1 and self._sampler is None

    def _most_records(self, spans: int) -> int:
        """Return how many records of so many spans each the tape may hold."""
        return -(-self.limit // spans)

    def _is_recorded(self, subscription: Subscription) -> bool:
        owner = subscription.owner
        core = getattr(getattr(owner, "plugin", None), "core", False)
        if owner is None:  # what serves the application's observers is of a core plugin, too
            module = getattr(subscription.handler, "__module__", None) or ""
            core = module.startswith("veko_plugins.")
        return (not core or self._core) and getattr(owner, "name", None) != "tracing"

    # -- the rarer cases, called from the snippets

    def _begin(self, outer: Any, site: Site, ratio: float) -> Record | None:
        """Begin an emission in any of the rarer cases; `None` if it is not recorded."""
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
        elif not isinstance(error, GeneratorExit):
            # A coroutine that is closed runs in the context of the code that closes it, where the
            # variable is not ours to set (test_a_coroutine_closed_from_elsewhere).
            self.variable.set(outer)

    def _find(self, site: Site | None) -> tuple[Record | None, Callable[[Any], None] | None]:
        """Find the record of the emission that a hook is called in, and its `append`."""
        outer = self.variable.get()
        if not isinstance(outer, tuple):
            # A handler before this one may have left a context of OpenTelemetry attached, which
            # covers our position (test_a_context_left_attached_loses_no_hook).
            inside = position_in(outer) if isinstance(outer, Context) else None
            if inside is None:
                return None, None
            outer = inside
        record: Record = outer[0]
        timed = isinstance(outer, TimedPosition) or record[SITE].concurrent
        if timed and site is not None:
            details_of(record, site).begin = clock()
        return record, record.append

    def begin(self, outer: Any, site: Site, ratio: float) -> Any:
        """Begin a record below what the variable holds.

        Args:
            outer: The value of the variable.
            site: The site of the record.
            ratio: The share of traces that is recorded, if a trace begins here.

        Returns:
            The record, or an `Unsampled` to put into the variable.
        """
        if isinstance(outer, tuple):
            return self.open(site, outer[0][SEGMENT], outer)
        if isinstance(outer, Dropped):
            if len(self.tape) >= self._most_records(site.spans):
                self.dropped += site.spans
                return outer
            return self.open(site, segment_of(), None)
        if isinstance(outer, Unsampled):
            return outer
        found = self._segment_below(outer, site, ratio)
        return found if isinstance(found, Unsampled) else self.open(site, *found)

    def open(self, site: Site, segment: Segment, parent: Any) -> Any:
        """Return a new record in a segment; a `Dropped` if the tape is full."""
        if len(self.tape) >= self._most_records(site.spans):
            self.dropped += site.spans
            return Dropped()
        return [segment, parent, site, clock(), 0, None]

    def _segment_below(self, outer: Context, site: Site, ratio: float) -> Any:
        """Return segment and parent below an OpenTelemetry context, or an `Unsampled`."""
        if not outer:
            return self._new_trace(site, outer, ratio)
        span: Any = outer.get(SPAN_KEY)
        if isinstance(span, LiveSpan):
            record = span.position[0]
            above: Segment = record[SEGMENT]
            segment = segment_of(trace_of(above), above[1], outer, above[4])
            segment[2] = offset_of(above)
            return segment, span.position
        found = remote_of(span)
        if found is None:
            return self._new_trace(site, outer, ratio)
        trace, number, sampled, state = found
        if not sampled:
            return unsampled(outer)
        segment = segment_of(trace, number, outer, state)
        inside = position_in(outer)
        if inside is not None and trace_of(inside[0][SEGMENT]) == trace:
            segment[2] = offset_of(inside[0][SEGMENT])
        return segment, None

    def _new_trace(self, site: Site, outer: Context, ratio: float) -> Any:
        """Begin a trace: return its segment and no parent, or an `Unsampled`."""
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
        self._write_error(record, site, error)
        here = self.variable.get()
        if isinstance(here, tuple) and here[0] is record:
            self.variable.set(TimedPosition((record, site)))

    def ended(self, record: Record, outer: Any, error: BaseException | None = None) -> None:
        """End a record, and set the variable back to what it held before."""
        record.append(clock())
        self.keep(record)
        if error is not None:
            self._write_error(record, None, error)
        here = self.variable.get()
        # See `_leave`: when a coroutine was closed, the variable is set back only if it is its own.
        if not isinstance(error, GeneratorExit) or (isinstance(here, tuple) and here[0] is record):
            self.variable.set(outer)

    def keep(self, record: Record) -> None:
        """Put a record on the tape."""
        self.tape.append(record)
        if len(self.tape) > HIGH_WATER:
            self.on_high_water()

    def _wake_reader(self) -> None:
        # Not `on_high_water` itself in the snippet: the reader sets another one each time it waits.
        self.on_high_water()

    def request_failed(self, error: BaseException) -> None:
        """Write an error that was answered with a response on the span of its request."""
        held = self.variable.get()
        if not isinstance(held, tuple):
            return
        record: Record = held[0]
        while record[PARENT] is not None:
            record = record[PARENT][0]
        if record[SITE].kind == SERVER:
            note_error(details_of(record, None), record[SEGMENT], error)

    def _write_error(self, record: Record, site: Site | None, error: BaseException) -> None:
        """Write down how a span ended that raised."""
        details = details_of(record, site)
        if isinstance(error, Stop):
            details.outcome = "stop"
        elif type(error).__name__ in _CANCELLED and not isinstance(error, Exception):
            # By name, since trio may not be installed.
            details.outcome = "cancelled"
        else:
            note_error(details, record[SEGMENT], error)

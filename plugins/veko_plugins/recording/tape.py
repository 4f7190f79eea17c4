"""The tape: what is emitted and requested, in memory, as a probe writes it down.

Cost: an emission reads the clock and a context variable, sets that twice, copies its payload and
appends one entry (`benchmarks/recording.py`). A payload that handlers may change (a dict, a list)
is copied once more at the end. There is no cost while the probe is not registered.
Promise: the tape is bounded, in entries and in bytes; the oldest go first. Nothing on it keeps a
plugin's objects alive. Nothing here waits or raises.
"""

from __future__ import annotations

import itertools
import marshal
import operator
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Sized
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from veko.extend import Call, Probe, Snippet

from .._lib.masking import sounds_secret
from .entries import Command, Emission, Entry, Task
from .faults import cause_of
from .values import LIMIT, forms_of, mask, read_outcome, read_snapshot, too_large

if TYPE_CHECKING:
    from veko import Subscription

__all__ = ["CURRENT", "Tape", "Unwritten", "entry_of", "note_entry"]

CURRENT: Final[ContextVar[int | None]] = ContextVar("veko_recorded", default=None)
"""The number of the entry inside which the code runs."""
_CHUNK: Final = 256
_SMALL: Final = 200
"""Bytes that an entry takes besides its payload."""
_UNRECORDED: Final = frozenset({"log", "error:handle", "plugin:error", "plugin:timeout"})
"""Failures have entries of their own."""
_MUTABLE: Final = frozenset({dict, list, set})

# Version 2 of marshal's format: later ones look each object up, to write it once. What a handler
# may have changed is copied at the end by msgspec: four times as fast, and enough to compare.
_BEFORE: Final = """\
fr_outer = fr_get()
if alone:
 fr_args = args
 fr_first = args[0] if args else None
else:
 fr_args = (value, %(extra)s*rest) if rest else (value, %(extra)s)
 fr_first = value
try: fr_payload = fr_dumps(fr_args, 2) if fr_site.small else None
except ValueError: fr_payload = fr_forms(fr_args)
fr_number = fr_next()
fr_entry = [fr_number, fr_outer, fr_site, fr_clock(), fr_payload, None, None, at_once]
fr_keep(fr_entry)
if not fr_number & 255: fr_rotate()
fr_put(fr_number)"""
_AFTER: Final = """\
fr_put(fr_outer)
fr_answer = answer if alone else value
if fr_answer is not fr_first or fr_answer.__class__ in fr_mutable:
 try: fr_entry[5] = fr_pack(fr_answer) if fr_site.small else None
 except Exception: fr_entry[5] = fr_forms((fr_answer,))"""
_FAILED: Final = "fr_left(fr_entry, fr_outer, error)"
_CALL: Final = Snippet(
    before="""\
fr_outer = fr_get()
fr_entry = [fr_next(), fr_outer, fr_site, fr_clock(), fr_payload, None, None, False]
fr_keep(fr_entry)
if not fr_entry[0] & 255: fr_rotate()
fr_put(fr_entry[0])""",
    after="""\
fr_put(fr_outer)
if fr_answers:
 try: fr_entry[5] = fr_pack(answer)
 except Exception: fr_entry[5] = fr_forms((answer,))""",
    failed=_FAILED,
)
_pack: Final = msgspec.msgpack.Encoder().encode
_payload: Final = operator.itemgetter(4)
_outcome: Final = operator.itemgetter(5)


class Unwritten(Protocol):
    """An entry on the tape that is not one of the probe's own."""

    def written(self) -> Entry:
        """Return the entry as it is written, masked."""
        ...


class Site:
    """What emissions of one event have in common.

    Attributes:
        kind: `emission`, `command` or `task`.
        name: The event; the command; the function.
        plugin: The plugin of a command or task.
        secret: The positions of arguments whose parameters have names of secrets.
        small: Whether payloads are recorded: not after several that were too large.
    """

    __slots__ = ("_large", "kind", "name", "plugin", "secret", "small")

    def __init__(
        self, kind: str, name: str, plugin: str | None = None, secret: frozenset[int] = frozenset()
    ) -> None:
        self.kind = kind
        self.name = name
        self.plugin = plugin
        self.secret = secret
        self.small = True
        self._large = 0

    def too_large(self) -> None:
        """Note that a payload was too large; after the third, none is copied any more."""
        self._large += 1
        self.small = self._large < 3


class Tape:
    """The last entries.

    Args:
        entries: How many there are at most.
        size: How many bytes they take at most, without the newest 256.
    """

    def __init__(self, entries: int, size: int) -> None:
        self._new: list[Any] = []
        self._chunks: deque[tuple[list[Any], int]] = deque()
        self._most, self._most_bytes = entries, size
        self._count = self._bytes = 0
        self._next = itertools.count(1).__next__
        self._sites: dict[tuple[str, str, str | None], Site] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return self._count + len(self._new)

    def clear(self) -> None:
        """Forget everything."""
        self._new.clear()
        self._chunks.clear()
        self._count = self._bytes = self.dropped = 0

    def number(self) -> int:
        """Return the next number."""
        return self._next()

    def add(self, entry: Unwritten, held: Sized | None = None) -> None:
        """Append an entry that is complete, or is completed later.

        Args:
            entry: The entry.
            held: Its length is how many bytes it holds.
        """
        self._new.append([0, None, entry, 0, held, None, None, False])
        if len(self._new) > _CHUNK:
            self._rotate()

    def raw(self) -> list[Any]:
        """Return what is on the tape now, from the oldest; for `written`."""
        older = itertools.chain.from_iterable(chunk for chunk, _ in self._chunks)
        return [list(one) for one in (*older, *self._new)]

    @staticmethod
    def written(raw: list[Any]) -> Iterator[Entry]:
        """Return entries as they are written, masked; may run in another thread."""
        return map(_entry, raw)

    def probe(self, event: str, subscriptions: Sequence[Subscription]) -> Probe | None:
        """Return the code around the emissions of an event; see `Bus.probe`."""
        first = subscriptions[0] if subscriptions else None
        if isinstance(first, Call):
            return self._around_call(first)
        if event in _UNRECORDED or all(map(_is_core, subscriptions)):
            return None
        most = max(one.arity or 1 for one in subscriptions)
        extra = "".join(f"a{index}, " for index in range(1, most))
        before = _BEFORE % {"extra": extra}
        names = self._names(self._site("emission", event, None, _secrets(subscriptions)))
        around = Snippet(before=before, after=_AFTER, failed=_FAILED, names=names)
        return Probe(around, [None] * len(subscriptions))

    def _around_call(self, call: Call) -> Probe | None:
        if call.kind not in {"command", "task"} or _is_core(call):
            return None
        plugin = getattr(call.owner, "name", None)
        name = call.event.partition(" ")[2]
        payload: object = None
        if call.kind == "command":  # its arguments are bound to it
            handler: Any = call.handler
            payload = forms_of([list(handler.args), handler.keywords])
        names = self._names(self._site(call.kind, name, plugin))
        names |= {"fr_payload": payload, "fr_answers": call.kind == "command"}
        return Probe(_CALL._replace(names=names), ())

    def _site(
        self, kind: str, name: str, plugin: str | None, secret: frozenset[int] = frozenset()
    ) -> Site:
        """Return the site of a name; the newest thousand are kept, for what they have learned."""
        key = (kind, name, plugin)
        site = self._sites.get(key)
        if site is None or site.secret != secret:
            if len(self._sites) >= 1000:
                self._sites.clear()
            site = self._sites[key] = Site(kind, name, plugin, secret)
        return site

    def _names(self, site: Site) -> dict[str, object]:
        return {
            "fr_get": CURRENT.get, "fr_put": CURRENT.set, "fr_dumps": marshal.dumps,
            "fr_forms": forms_of, "fr_site": site, "fr_next": self._next, "fr_clock": time.time_ns,
            "fr_keep": self._new.append, "fr_pack": _pack,
            "fr_rotate": self._rotate, "fr_mutable": _MUTABLE, "fr_left": _left,
        }  # fmt: skip

    def _rotate(self) -> None:
        """Put the newest entries aside, and drop the oldest."""
        chunk = self._new[:]
        self._new.clear()  # in place: generated code holds the list
        # By functions of C alone: a loop in Python over each entry would add a third to its cost.
        sizes = [
            *map(len, filter(None, map(_payload, chunk))),
            *map(len, filter(None, map(_outcome, chunk))),
        ]
        if max(sizes, default=0) > LIMIT:
            sizes = [size for entry in chunk for size in _shorten(entry)]
        size = sum(sizes) + _SMALL * len(chunk)
        self._chunks.append((chunk, size))
        self._count += len(chunk)
        self._bytes += size
        while self._count > self._most or self._bytes > self._most_bytes:
            oldest, size = self._chunks.popleft()
            self._count -= len(oldest)
            self._bytes -= size
            self.dropped += len(oldest)


def _shorten(entry: list[Any]) -> Iterator[int]:
    """Drop what is too large of an entry; yield the sizes of what is left."""
    for index in (4, 5):
        held = entry[index]
        if type(held) is bytes and len(held) > LIMIT:
            entry[2].too_large()
            held = entry[index] = too_large(len(held))
        yield len(held or ())


def _left(entry: list[Any], outer: int | None, error: BaseException) -> None:
    """End an entry whose code raised; what reports the error finds the entry by it."""
    entry[6] = type(error).__qualname__
    trace = error.__traceback__
    if isinstance(error, GeneratorExit) and (trace is None or trace.tb_next is None):
        return  # a coroutine that is closed runs in the context of the code that closes it
    CURRENT.set(outer)
    note_entry(error, entry[0])


def note_entry(error: BaseException, number: int) -> None:
    """Note on an error in which entry it was raised; the innermost counts."""
    try:
        if not hasattr(error, "_veko_recorded"):
            error._veko_recorded = number  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        return  # a class without room for it


def entry_of(error: BaseException) -> int | None:
    """Return the number of the entry in which an error was raised."""
    found = getattr(error, "_veko_recorded", None) or getattr(
        cause_of(error), "_veko_recorded", None
    )
    return found if isinstance(found, int) else CURRENT.get()


def _entry(raw: list[Any]) -> Entry:
    number, outer, site, at, payload, outcome, failed, gathered = raw
    if type(site) is not Site:
        unwritten: Unwritten = site
        return unwritten.written()
    forms = None if payload is None else read_snapshot(payload)
    result = None if outcome is None else mask(read_outcome(outcome))
    if site.kind == "task":
        return Task(number, outer, at, site.plugin, site.name, failed)
    if site.kind == "command":
        args, named = forms or [[], {}]
        return Command(
            number, outer, at, site.plugin, site.name, mask(args), mask(named), result, failed
        )
    if forms is None:
        forms = too_large(LIMIT)
    args = [mask(form, "secret" if i in site.secret else None) for i, form in enumerate(forms)]
    if result == args[:1]:
        result = None  # copied because it might have changed, and it has not
    return Emission(number, outer, at, site.name, args, result, failed, gathered)


def _is_core(subscription: Subscription) -> bool:
    owner = subscription.owner
    if owner is None:  # what serves the application's observers is of a core plugin, too
        module = getattr(subscription.handler, "__module__", None) or ""
        return module.startswith("veko_plugins.")
    return bool(getattr(getattr(owner, "plugin", None), "core", False))


def _secrets(subscriptions: Sequence[Subscription]) -> frozenset[int]:
    """Return the positions of arguments whose parameters are called as secrets are."""
    found: set[int] = set()
    for one in subscriptions:
        function: Callable[..., object] = one.handler
        bound = int(hasattr(function, "__self__"))
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if code is not None:
            names = code.co_varnames[bound : code.co_argcount]
            found |= {index for index, name in enumerate(names) if sounds_secret(name)}
    return frozenset(found)

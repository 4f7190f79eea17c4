"""Events: names, patterns of names, declarations, and how a handler ends a chain."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

import msgspec

from ..errors import VekoError

__all__ = ["REPORTS", "Event", "Origin", "Stop", "is_pattern", "matches", "matching"]

MANY: Final = 200
"""From how many events on an expression pays: it takes as long to compile as those to match."""

T = TypeVar("T")
V = TypeVar("V")


class Stop(Exception):
    """Raised by a handler to end the chain with a value.

    Args:
        value: What the emission returns; in `first` it is the answer, in `gather` this
            handler's answer. `Stop(None)` answers `None`.
    """

    def __init__(self, value: Any = None) -> None:
        super().__init__(value)
        self.value = value


class Event(msgspec.Struct, Generic[T], frozen=True):
    """A declared event: the type of its value, and what handlers may do to it.

    `Event("order:paid", payload=Order)` is an `Event[Order]` to type checkers; given instead of
    its name, it lets them check emitted values and handlers.

    Attributes:
        name: Segments joined by colons: `"request:start"`.
        payload: The type of the first argument; generics are checked by their origin.
        returns: Whether a returned value replaces the payload. It is checked against `payload`
            and refused, naming the handler, if it is of another type.
        stops: A type, or several, that ends the chain when a handler returns an instance of it.
            A handler that raises one has not failed: it is raised to the caller of `emit`.
        doc: When it is emitted and its arguments; one or two sentences.
        fails_closed: Whether a handler that fails or exceeds its time limit ends the emission:
            its error is reported, and then raised to the caller of `emit`, `first` or `gather`.
            For events at which handlers decide what may pass. Handlers that subscribed with
            `observe=True` never end it.
    """

    name: str
    payload: Any = object
    returns: bool = False
    stops: Any = None
    doc: str = ""
    fails_closed: bool = False

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: Event[V],
            name: str,
            payload: type[V],
            returns: bool = ...,
            stops: None = ...,
            doc: str = ...,
            fails_closed: bool = ...,
        ) -> None: ...
        @overload  # a union, which no `type[V]` describes, or answers of other types than the value
        def __init__(
            self: Event[Any],
            name: str,
            payload: Any = ...,
            returns: bool = ...,
            stops: Any = ...,
            doc: str = ...,
            fails_closed: bool = ...,
        ) -> None: ...
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __hash__(self) -> int:
        return hash(self.name)  # the other fields need not be hashable


class Origin(msgspec.Struct, frozen=True):
    """Where an error came from: the second argument of `error:handle`.

    Attributes:
        plugin: The name of the owner whose code failed, a plugin say; `None` for the host.
        event: The event that was being emitted, if it was a hook.
        handler: The name of the function that failed.
        subject: What was being worked on (a request, say).
        part: The part of the owner that the failure counts against (the route `GET /x`, say);
            `None` if it counts against the owner as a whole.
        counts: Whether it counts as a failure; what a client can cause at will does not.
    """

    plugin: str | None = None
    event: str | None = None
    handler: str | None = None
    subject: Any = None
    part: str | None = None
    counts: bool = True


REPORTS: Final[tuple[Event[Any], ...]] = (
    Event(
        "error:handle",
        payload=BaseException,
        returns=True,
        doc="A handler or a plugin's code raised an error. Arguments: the error, its `Origin`.",
    ),
    Event(
        "plugin:error",
        payload=str | None,
        doc="A plugin failed. Arguments: its name (`None` for a handler of the host), the error.",
    ),
    Event(
        "plugin:timeout",
        payload=str | None,
        doc="A plugin's handler or step exceeded its time limit. Arguments: its name, the error.",
    ),
)
"""What `Bus.report` emits. The names are public, and say "plugin" for any owner."""


def is_pattern(name: object) -> bool:
    """Tell whether a name is a pattern.

    Raises:
        VekoError: A segment is empty, or holds `*` beside other characters.
    """
    segments = name.split(":") if isinstance(name, str) else [""]
    for segment in segments:
        if not segment or ("*" in segment and segment not in ("*", "**")):
            raise VekoError(
                f"{name!r} is not the name of an event or a pattern",
                remedy="Segments are joined by ':'; one that is '*' stands for any, '**' for many.",
            )
    return "*" in segments or "**" in segments


@functools.lru_cache(maxsize=4096)
def matches(pattern: str, event: str) -> bool:
    """Tell whether a pattern matches an event: `*` is one segment, `**` any number of them.

    `log` and `…:error` are matched only by a pattern whose last segment is the same: otherwise a
    catch-all handler that fails, or logs, would receive its own failures and records.
    """
    want = pattern.split(":")
    return not _quiet(event, want[-1]) and _match(want, event.split(":"))


def matching(patterns: Iterable[str], events: Collection[str]) -> list[str]:
    """Return those of some events that one of some patterns matches, each once."""
    found: dict[str, None] = {}
    for pattern in patterns:
        if len(events) < MANY:
            heard = [one for one in events if matches(pattern, one)]
        else:
            last, match = pattern.split(":")[-1], _expression(pattern)
            heard = [one for one in events if match(f":{one}") and not _quiet(one, last)]
        found |= dict.fromkeys(heard)
    return list(found)


def _quiet(event: str, last: str) -> bool:
    """Tell whether a pattern with that last segment must not hear an event."""
    return (event == "log" and last != "log") or (event.endswith(":error") and last != "error")


def _match(want: list[str], have: list[str]) -> bool:
    if not want:
        return not have
    if want[0] == "**":
        return any(_match(want[1:], have[i:]) for i in range(len(have) + 1))
    return bool(have) and want[0] in ("*", have[0]) and _match(want[1:], have[1:])


def _expression(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Return what matches `:` and the name of an event."""
    parts = {"*": ":[^:]*", "**": "(?::[^:]*)*"}
    text = "".join(parts.get(one, f":{re.escape(one)}") for one in pattern.split(":"))
    return re.compile(text).fullmatch

"""Events: their names, patterns of names, declarations, and how a handler ends a chain."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from ..errors import VekoError

__all__ = ["Event", "Origin", "Stop", "is_pattern", "matches"]


class Stop(Exception):
    """Raised by a handler to end the chain with a value.

    Args:
        value: What the emission returns; in `first` it is the answer, in `gather` this
            handler's answer. `Stop(None)` is how to say `None`.
    """

    def __init__(self, value: Any = None) -> None:
        super().__init__(value)
        self.value = value


class Event(msgspec.Struct, frozen=True):
    """A declared event: what travels with it and what handlers may do to it.

    Attributes:
        name: Segments joined by colons: `"request:start"`.
        payload: The type of the first argument; generics are checked by their origin.
        returns: Whether a returned value replaces the payload. It is checked against `payload`
            and refused, naming the handler, if it is of another type.
        stops: A type, or several, that ends the chain when a handler returns an instance of it.
            A handler that raises one has not failed: it goes to who emits.
        doc: When it fires and what its arguments are; one or two sentences.
    """

    name: str
    payload: Any = object
    returns: bool = False
    stops: Any = None
    doc: str = ""


class Origin(msgspec.Struct, frozen=True):
    """Where an error came from: the second argument of `error:handle`.

    Attributes:
        plugin: The plugin whose code failed, or `None` for the host's own.
        event: The event that was being emitted, if it was a hook.
        handler: The name of the function that failed.
        subject: What was being worked on (a request, say).
    """

    plugin: str | None = None
    event: str | None = None
    handler: str | None = None
    subject: Any = None


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

    `log` and `…:error` are matched only by a pattern whose last segment says so: a handler of
    "everything" that fails, or logs, would otherwise hear itself.
    """
    want, have = pattern.split(":"), event.split(":")
    quiet = have[-1] if event == "log" or (len(have) > 1 and have[-1] == "error") else None
    if quiet is not None and want[-1] != quiet:
        return False
    return _match(want, have)


def _match(want: list[str], have: list[str]) -> bool:
    if not want:
        return not have
    if want[0] == "**":
        return any(_match(want[1:], have[i:]) for i in range(len(have) + 1))
    return bool(have) and want[0] in ("*", have[0]) and _match(want[1:], have[1:])

"""Probes: code that is put into plans, around each handler and around the whole emission.

An interceptor is called in the place of what it stands around; its frame, and that of an async one
its coroutine, cost more than what most of them do. A probe gives its lines instead, and a plan that
proved hot has them written into its own straight line of calls: what it costs there is what the
lines cost (`if x is not None`: 5 ns). Everywhere else, where a plan is a loop, in `first`, `gather`
and strict emissions, the same lines stand in a function around the call.

The lines are trusted as the kernel's own: what raises in them breaks the emission.
"""

from __future__ import annotations

import functools
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .signature import is_async

__all__ = ["Probe", "Snippet", "Texts", "enclosed", "lines_of", "names_of", "texts_of"]

Texts = tuple[str, ...]
"""The lines of a snippet without its names: what generated code is kept by."""


class Snippet(NamedTuple):
    """Lines of Python that stand around a call, one text for each place.

    All names in them, of variables and of `names`, share one function with those of other probes:
    let them begin with a prefix of its own. `$` becomes the number of the handler.

    Attributes:
        before: Run before the call.
        after: Run when it has returned.
        failed: Run when it has raised; `error` is what it raised, and goes on from there.
        resumed: Of a handler: run when its failure was reported and the emission goes on.
        alone: Of a handler: run first where the lines stand in a function of their own, and those
            of the emission in another one; it finds what they would share.
        names: What the lines name. There are two names more: `alone`, whether the lines stand in
            a function of their own, and `at_once`, whether the handlers run side by side.
    """

    before: str = ""
    after: str = ""
    failed: str = ""
    resumed: str = ""
    alone: str = ""
    names: Mapping[str, object] = {}


_PLACES: Final = Snippet._fields[:-1]


class Probe(NamedTuple):
    """What a probe puts into the plan of one event.

    Attributes:
        emission: Around the whole emission, or nothing.
        hooks: Around each handler, in order, or nothing.
    """

    emission: Snippet | None
    hooks: Sequence[Snippet | None]


def texts_of(snippets: Sequence[Snippet]) -> tuple[Texts, ...]:
    """Return the lines of some snippets."""
    return tuple((s.before, s.after, s.failed, s.resumed, s.alone) for s in snippets)


def lines_of(texts: Sequence[Texts], place: str, indent: str, number: int | str = "") -> list[str]:
    """Return the lines of some snippets for one place: `before`, `after`, …

    What stands before the call begins with the first snippet, what stands after it with the last.
    """
    around = reversed(texts) if place in {"after", "failed"} else texts
    index = _PLACES.index(place)
    joined = "\n".join(text[index] for text in around if text[index])
    return textwrap.indent(joined.replace("$", str(number)), indent).splitlines()


def names_of(snippets: Sequence[Snippet], number: int | str = "") -> dict[str, object]:
    """Return what the lines of some snippets name."""
    return {
        name.replace("$", str(number)): value
        for snippet in snippets
        for name, value in snippet.names.items()
    }


def enclosed(
    call: Callable[..., Any],
    snippets: Sequence[Snippet],
    arity: int | None = None,
    *,
    at_once: bool = False,
) -> Callable[..., Any]:
    """Return a function that has lines around a call; the call itself where there are none.

    Args:
        call: What is called.
        snippets: The lines, the outermost first.
        arity: How many arguments it is given; `None`: all.
        at_once: Whether it is an emission whose handlers run side by side.
    """
    if not snippets:
        return call
    code = _code(arity, is_async(call), texts_of(snippets))
    names: dict[str, Any] = {"call": call, "alone": True, "at_once": at_once}
    names |= names_of(snippets)
    return types.FunctionType(_named(code, call, arity), names)


@functools.lru_cache(maxsize=256)
def _code(arity: int | None, waits: bool, texts: tuple[Texts, ...]) -> types.CodeType:
    given = "*args" if arity is None else ", ".join(f"a{i}" for i in range(arity))
    lines = [
        f"{'async ' if waits else ''}def enclosed({given}):",
        *lines_of(texts, "alone", " "),
        *lines_of(texts, "before", " "),
        " try:",
        f"  answer = {'await ' if waits else ''}call({given})",
        " except BaseException as error:",
        *lines_of(texts, "failed", "  "),
        "  raise",
        *lines_of(texts, "after", " "),
        " return answer",
    ]
    scope: dict[str, Any] = {}
    exec(compile("\n".join(lines), "<veko probe>", "exec"), scope)
    code: types.CodeType = scope["enclosed"].__code__
    return code


def _named(code: types.CodeType, call: Callable[..., Any], arity: int | None) -> types.CodeType:
    """Put a handler's names on code: one that is given too little is told as it would be."""
    inner = call.__func__ if isinstance(call, types.MethodType) else call
    if not isinstance(inner, types.FunctionType):
        return code.replace()
    bound = 1 if inner is not call else 0
    own = inner.__code__.co_varnames[bound : bound + (arity or 0)]
    if len(own) < (arity or 0) or set(own) & set(code.co_varnames[arity or 0 :]):
        return code.replace()
    return code.replace(
        co_name=inner.__name__,
        co_qualname=inner.__qualname__,
        co_varnames=(*own, *code.co_varnames[len(own) :]),
    )

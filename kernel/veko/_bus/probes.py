"""Probes: code that is put into plans, around each handler and around the whole emission.

An interceptor is called instead of what it wraps; its frame, and the coroutine of an async one,
cost more than what most of them do. A probe gives its lines instead, and a plan that proved hot has
them written into its own straight line of calls: there a probe costs what its lines cost (`if x is
not None`: 5 ns). Elsewhere (where a plan is a loop, in `first`, `gather` and strict emissions) the
same lines stand in a function around the call.

The lines are trusted as the bus's own: what raises in them breaks the emission.
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
    """Lines of Python that stand around a call, one text for each moment.

    All names in them, of variables and of `names`, share one function with those of other probes:
    give them a prefix of their own. `$` becomes the number of the handler.

    Attributes:
        before: Run before the call.
        after: Run when it has returned.
        failed: Run when it has raised; `error` is what it raised, and is raised again afterwards.
        resumed: Of a handler: run when its failure was reported and the emission continues.
        alone: Of a handler: run first where the lines stand in a function of their own, and those
            of the emission in another one; it finds what they would share.
        names: The globals of the lines. There are two more: `alone`, whether the lines stand in
            a function of their own, and `at_once`, whether the handlers run side by side.
    """

    before: str = ""
    after: str = ""
    failed: str = ""
    resumed: str = ""
    alone: str = ""
    names: Mapping[str, object] = {}


_MOMENTS: Final = Snippet._fields[:-1]


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


def lines_of(texts: Sequence[Texts], moment: str, indent: str, number: int | str = "") -> list[str]:
    """Return the lines of some snippets for one moment: `before`, `after`, …

    Lines before the call begin with the first snippet, those after it with the last.
    """
    around = reversed(texts) if moment in {"after", "failed"} else texts
    index = _MOMENTS.index(moment)
    joined = "\n".join(text[index] for text in around if text[index])
    return textwrap.indent(joined.replace("$", str(number)), indent).splitlines()


def names_of(snippets: Sequence[Snippet], number: int | str = "") -> dict[str, object]:
    """Return the globals of the lines of some snippets."""
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
    """Put a handler's names on code, so that an error about its arguments names it."""
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

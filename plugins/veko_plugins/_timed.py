"""Timing wrappers: what stands in for a handler and counts how long it took.

Cost: two looks at the clock, one frame (two for `async def`: a coroutine of the wrapper's own) and
one count. The code is made for the number of arguments that a handler gets, because passing them
on as `*args` would cost as much again as the clock, and each wrapper has a copy of its own, since
the interpreter specialises code for one set of functions.
Promise: a wrapper is what the handler is, `def` or `async def`; it answers and raises what that
does; a call that fails or is cancelled is counted like any other. It holds the handler and the
histogram, nothing that holds a plugin.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from ._histogram import SHORT, SLOTS, Histogram

__all__ = ["timed"]


def timed(
    call: Callable[..., Any],
    arity: int | None,
    is_async: bool,
    histogram: Histogram,
    clock: Callable[[], int],
) -> Callable[..., Any]:
    """Wrap a handler.

    Args:
        call: The handler, or what already stands in for it.
        arity: How many arguments it gets; `None` for all.
        is_async: Whether calling it gives a coroutine.
        histogram: Where its durations are counted.
        clock: Gives nanoseconds that never go back.
    """
    code = _code(arity, is_async)
    names = {
        "call": call,
        "clock": clock,
        "counts": histogram.counts,
        "slots": SLOTS,
        "late": histogram.add,
    }
    # Under the handler's names, so that one who gives too few arguments is told as it would.
    inner = call.__func__ if isinstance(call, types.MethodType) else call
    if isinstance(inner, types.FunctionType):
        bound = 1 if inner is not call else 0
        own = inner.__code__.co_varnames[bound : bound + (arity or 0)]
        code = code.replace(
            co_name=inner.__name__,
            co_qualname=inner.__qualname__,
            co_varnames=(*own, *code.co_varnames[len(own) :]),
        )
    else:
        code = code.replace()
    return types.FunctionType(code, names)


@functools.lru_cache(maxsize=64)
def _code(arity: int | None, is_async: bool) -> types.CodeType:
    names = [f"a{i}" for i in range(arity or 0)]
    passed = "*args" if arity is None else ", ".join(names)
    wait = "await " if is_async else ""
    lines = [
        f"{'async ' if is_async else ''}def timed({passed}):",
        " begin = clock()",
        " try:",
        f"  return {wait}call({passed})",
        " finally:",
        "  took = clock() - begin",
        f"  if took < {SHORT}: counts[slots[took]] += 1",
        "  else: late(took)",
    ]
    scope: dict[str, Any] = {}
    exec(compile("\n".join(lines), "<veko metrics>", "exec"), scope)
    code: types.CodeType = scope["timed"].__code__
    return code

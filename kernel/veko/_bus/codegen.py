"""The code of a plan: a straight line of calls, generated for the shape of a chain.

Handlers are globals of the function that is made of it, and each plan gets a copy of the code:
the interpreter specialises code for one set of functions.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Awaitable
from typing import Any, Final

from .probes import Texts, lines_of

__all__ = ["FILENAME", "MISSING", "Shape", "awaited", "code_of"]

FILENAME: Final = "<veko plan>"
MISSING: Final[Any] = object()
Shape = tuple[tuple[bool, int | None, bool, bool, bool, tuple[Texts, ...]], ...]
"""For each handler: whether it is async, how many arguments it gets (`None`: all), whether it has a
time limit, whether it has been seen to answer, whether its answers are ignored, and what probes put
around it."""


@functools.lru_cache(maxsize=1024)
def code_of(
    steps: Shape, takes: bool, checked: bool, around: tuple[Texts, ...] = ()
) -> tuple[types.CodeType, tuple[object, ...], tuple[int, ...]]:
    """Generate the code of a shape.

    Args:
        steps: The shape.
        takes: Whether what handlers return replaces the value.
        checked: Whether what async handlers return is checked, too.
        around: What probes put around the whole.

    Returns:
        The code, whose globals are the handlers; the defaults of its parameters; and the first
        line of each handler's part.
    """
    most = max((arity or 1 for _, arity, *_ in steps), default=1)
    extra = [f"a{i}" for i in range(1, most)]
    names = ["value", *extra]
    # Where a handler may have to be stopped, `yield from` in place of `await`: it takes iterators,
    # too, and so `limits.suspended`. The code is a coroutine's all the same.
    by_hand = any(limit for _, _, limit, *_ in steps)
    wait = "yield from" if by_hand else "await"
    define = "def" if by_hand else "async def"
    lines = [f"{define} emission(value, {''.join(f'{a}, ' for a in extra)}*rest):"]
    if extra:  # too few arguments for some handler: let the loop report the handler
        given = ", ".join(f"*(() if {a} is MISSING else ({a},))" for a in extra)
        lines += [f"  if {extra[-1]} is MISSING:", f"   return ({wait} loop(value, {given}))"]
    if by_hand:
        lines += [
            "  if 'trio' in modules and on_asyncio() is None:",
            f"   return ({wait} loop({', '.join(names)}, *rest))",
        ]
    lines += [
        "  token = plan.token",
        "  if token is None:",
        f"   return ({wait} loop({', '.join(names)}, *rest))",
        "  try:",
        *lines_of(around, "before", "   "),
    ]
    outer = "   "
    if around:
        lines.append("   try:")
        outer = "    "
    starts: list[int] = []
    for i, (is_async_step, arity, limit, answers, observes, probes) in enumerate(steps):
        starts.append(len(lines) + 1)
        given = ", ".join([*names, "*rest"] if arity is None else names[:arity])
        # A limited handler's first step is taken by hand: most never suspend, and need no timer
        # then. See `limits`; held by test_handlers_within_their_limit. What it waits for begins
        # outside `except`: nothing that it raises is raised while another error is handled.
        call = [
            f"c = h{i}({given})",
            "try: r = yield from filter(suspended, c.__await__())",
            "except Suspended as error: r = error.with_traceback(None)",
            "if r.__class__ is Suspended:",
            f" r = yield from resume_limited(c, r.args[0], s{i}.limit, s{i}.late)",
        ]
        if not limit:
            call = [f"r = {'await ' if is_async_step else ''}h{i}({given})"]
            if by_hand and is_async_step:  # `yield from` takes no awaitable but a coroutine
                call = [
                    f"c = h{i}({given})",
                    "r = yield from (c if c.__class__ is Coroutine else awaited(c))",
                ]
        if probes:
            call = [
                *lines_of(probes, "before", "", i),
                "try:",
                *[f" {line}" for line in call],
                "except BaseException as error:",
                *lines_of(probes, "failed", " ", i),
                " raise",
                *lines_of(probes, "after", "", i),
            ]
        if observes:
            if not is_async_step:  # a coroutine that it returned is a failure
                call.append(f"if r is not None: check{i}(r, value)")
        elif not is_async_step or checked:
            # The most frequent case comes first: an answer of the type seen before, or none.
            take = "value = " if takes else ""
            if answers:
                call.append(f"if r.__class__ is type{i}: {take}r")
            rare = f"{'elif' if answers else 'if'} r is not None and r is not value"
            call.append(f"{rare}: {take}check{i}(r, value)")
        elif takes:
            call.append("if r is not None: value = r")
        call = [
            "try:",
            *[f" {line}" for line in call],
            *(
                []
                if observes
                else [
                    "except Stop as stop:",
                    " value = stop.value",
                    *lines_of(around, "after", " "),
                    " return value",
                ]
            ),
            "except BaseException as error:",
            f" {wait} failed(s{i}, error, ({', '.join(names)}, *rest))",
            *lines_of(probes, "resumed", " ", i),
        ]
        lines += [outer + line for line in call]
    if around:
        lines += [
            "   except BaseException as error:",
            *lines_of(around, "failed", "    "),
            "    raise",
            *lines_of(around, "after", "   "),
        ]
    lines += ["   return value", "  finally:", "   del token"]
    scope: dict[str, Any] = {}
    exec(compile("\n".join(lines), FILENAME, "exec"), scope)
    code: types.CodeType = scope["emission"].__code__
    if by_hand:
        code = code.replace(co_flags=code.co_flags & ~inspect.CO_GENERATOR | inspect.CO_COROUTINE)
    return code, (MISSING,) * len(extra), tuple(starts)


async def awaited(awaitable: Awaitable[Any]) -> Any:
    """Make a coroutine of anything that can be awaited."""
    return await awaitable

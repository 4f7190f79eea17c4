"""The code of a plan: a straight line of calls, generated for the shape of a chain.

Handlers are globals of the function that is made of it, and each plan gets a copy of the code:
the interpreter specialises code for one set of functions.
"""

from __future__ import annotations

import functools
import types
from typing import Any, Final

__all__ = ["FILENAME", "MISSING", "Shape", "code_of"]

FILENAME: Final = "<veko plan>"
MISSING: Final[Any] = object()
Shape = tuple[tuple[bool, int | None, bool, bool], ...]
"""For each handler: is it async, how many arguments it gets (`None`: all), has it a time limit,
has it been seen to answer."""


@functools.lru_cache(maxsize=1024)
def code_of(
    steps: Shape, takes: bool, checked: bool
) -> tuple[types.CodeType, tuple[object, ...], tuple[int, ...]]:
    """Generate the code of a shape, whose globals are the handlers, its defaults and first lines.

    Args:
        steps: The shape.
        takes: Whether what handlers return replaces the value.
        checked: Whether what async handlers return is checked, too.
    """
    most = max((arity or 1 for _, arity, _, _ in steps), default=1)
    extra = [f"a{i}" for i in range(1, most)]
    names = ["value", *extra]
    lines = [f"async def emission(value, {''.join(f'{a}, ' for a in extra)}*rest):"]
    if extra:  # too few arguments for some handler: let the loop say whose fault that is
        given = ", ".join(f"*(() if {a} is MISSING else ({a},))" for a in extra)
        lines += [f"  if {extra[-1]} is MISSING:", f"   return await loop(value, {given})"]
    if any(limit for _, _, limit, _ in steps):
        lines += [
            "  if 'trio' in modules and on_asyncio() is None:",
            f"   return await loop({', '.join(names)}, *rest)",
        ]
    lines += [
        "  token = plan.token",
        "  if token is None:",
        f"   return await loop({', '.join(names)}, *rest)",
        "  try:",
    ]
    starts: list[int] = []
    for i, (is_async_step, arity, limit, answers) in enumerate(steps):
        starts.append(len(lines) + 1)
        given = ", ".join([*names, "*rest"] if arity is None else names[:arity])
        lines.append("   try:")
        if limit:
            lines += [
                f"    c = h{i}({given})",
                "    try: y = c.send(None)",
                "    except StopIteration as end: r = end.value",
                f"    else: r = await resume_limited(c, y, s{i}.limit)",
            ]
        else:
            lines.append(f"    r = {'await ' if is_async_step else ''}h{i}({given})")
        if not is_async_step or checked:
            # What it has been seen to do is asked first: to answer, with that type, or not.
            take = "value = " if takes else ""
            if answers:
                lines.append(f"    if r.__class__ is type{i}: {take}r")
            rare = f"{'elif' if answers else 'if'} r is not None and r is not value"
            lines.append(f"    {rare}: {take}check{i}(r, value)")
        elif takes:
            lines.append("    if r is not None: value = r")
        lines += [
            "   except BaseException as error:",
            f"    if await failed(s{i}, error): return error.value",
        ]
    lines += ["   return value", "  finally:", "   del token"]
    scope: dict[str, Any] = {}
    exec(compile("\n".join(lines), FILENAME, "exec"), scope)
    return scope["emission"].__code__, (MISSING,) * len(extra), tuple(starts)

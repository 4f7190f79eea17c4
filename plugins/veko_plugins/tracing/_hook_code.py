"""The code that stands around a handler, generated for the number of its arguments.

Passing them on as `*args` would cost as much as the look at the clock; and each wrapper has a copy
of its own, since the interpreter specialises code for one set of functions.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

__all__ = ["hook_code", "named"]


@functools.lru_cache(maxsize=128)
def hook_code(
    arity: int | None, is_async: bool, thin: bool
) -> tuple[types.CodeType, types.CodeType | None]:
    """Generate the code that stands around a handler, for the number of its arguments.

    Returns:
        The code, and what it hands on to if it is a plain def that returns coroutines.
    """
    names = [f"a{i}" for i in range(arity or 0)]
    given = "*args" if arity is None else ", ".join(names)
    wait, word = ("await ", "async def") if is_async else ("", "def")
    body = f"""
    if outer.__class__ is not tuple:
        if outer.__class__ is Unsampled:
            return {wait}call({given})
        record = enter(outer, site)
        if record is None:
            return {wait}call({given})
    else:
        record = outer[0]
        put((record, site))
    try:
        answer = {wait}call({given})
    except BaseException as error:
        failed(record, site, error)
        raise
    add(record)
    add(site)
    add(clock())
    return answer
"""
    if thin and is_async:
        source = f"""
def traced({given}):
    outer = get()
    if outer.__class__ is Unsampled:
        return call({given})
    return recorded(outer{", " if given else ""}{given})
{word} recorded(outer{", " if given else ""}{given}):{body}"""
    else:
        source = f"{word} traced({given}):\n    outer = get(){body}"
    scope: dict[str, Any] = {}
    exec(compile(source, "<veko tracing>", "exec"), scope)
    inner = scope.get("recorded")
    return scope["traced"].__code__, None if inner is None else inner.__code__


def named(code: types.CodeType, call: Callable[..., Any], arity: int | None) -> types.CodeType:
    """Put a handler's names on code: one who gives too few arguments is told as it would."""
    inner = call.__func__ if isinstance(call, types.MethodType) else call
    if not isinstance(inner, types.FunctionType):
        return code.replace()
    bound = 1 if inner is not call else 0
    own = inner.__code__.co_varnames[bound : bound + (arity or 0)]
    if len(own) < (arity or 0):
        return code.replace()
    return code.replace(
        co_name=inner.__name__,
        co_qualname=inner.__qualname__,
        co_varnames=(*own, *code.co_varnames[len(own) :]),
    )

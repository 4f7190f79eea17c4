"""What can be told of a function before it is called; settled once, when it subscribes."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

__all__ = ["is_async", "required_arguments"]


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling a handler gives a coroutine."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - the method itself is wanted
    )


def required_arguments(function: Callable[..., Any]) -> int | None:
    """Return how many positional parameters have no default; `None` if it takes `*args`.

    Raises:
        TypeError: A keyword-only parameter has no default, so it can never be called.
    """
    inner = function.__func__ if isinstance(function, types.MethodType) else function
    if isinstance(inner, types.FunctionType) and not hasattr(inner, "__wrapped__"):
        code = inner.__code__
        if not code.co_kwonlyargcount:  # the usual case, forty times cheaper than a Signature
            if code.co_flags & inspect.CO_VARARGS:
                return None
            bound = 1 if inner is not function else 0
            return max(0, code.co_argcount - bound - len(inner.__defaults__ or ()))
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some builtins have none
        return None
    count = 0
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            return None
        if parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            raise TypeError(f"{parameter.name} is keyword-only and has no default")
        count += 1
    return count

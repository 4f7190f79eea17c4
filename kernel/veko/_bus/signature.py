"""What a function takes, and whether it is async; settled once, when it subscribes."""

from __future__ import annotations

import functools
import inspect
import opcode
import types
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["Parameters", "is_async", "may_suspend", "parameters", "required_arguments"]

_YIELD: Final = opcode.opmap["YIELD_VALUE"]


class Parameters(NamedTuple):
    """The parameters of a function, as far as a call needs them.

    Attributes:
        positional: Names of those that can only be given by position.
        named: Names of those that can be given by name.
        only_named: Names of those that can only be given by name.
        required: Names of those without default.
        rest: Whether there is a `*args`.
        others: Whether there is a `**kwargs`.
    """

    positional: tuple[str, ...]
    named: tuple[str, ...]
    only_named: tuple[str, ...]
    required: tuple[str, ...]
    rest: bool
    others: bool

    def choose(self, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Choose from named values what a call gives: `fn(*args, **kwargs)`.

        A `*args` gets all of them in their order, a `**kwargs` all of them by name.
        """
        if self.rest:
            return tuple(given.values()), {}
        if self.others:
            return (), dict(given)
        first = tuple(given[name] for name in self.positional if name in given)
        return first, {name: given[name] for name in self.named if name in given}


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling a handler gives a coroutine."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - the method itself is wanted
    )


def may_suspend(function: Callable[..., Any]) -> bool:
    """Tell whether a call of an async function may suspend; where that is unknown, it may.

    It cannot if its code has no `await`, `async for` or `async with`: all of them are compiled to a
    yield, the one instruction in which a coroutine suspends. Held by
    test_a_limit_is_kept_wherever_a_handler_may_suspend.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if not isinstance(function, types.FunctionType | types.MethodType):
        function = getattr(type(function), "__call__", function)  # noqa: B004 - see `is_async`
    if isinstance(function, types.MethodType):
        function = function.__func__
    if not isinstance(function, types.FunctionType):
        return True
    code = function.__code__
    return not code.co_flags & inspect.CO_COROUTINE or _YIELD in code.co_code[::2]


def parameters(function: Callable[..., Any]) -> Parameters:
    """Return a function's parameters; some forty times cheaper than a Signature for plain ones.

    Raises:
        ValueError, TypeError: It has no signature.
    """
    inner = function.__func__ if isinstance(function, types.MethodType) else function
    if isinstance(inner, types.FunctionType) and not hasattr(inner, "__wrapped__"):
        code, flags = inner.__code__, inner.__code__.co_flags
        if not code.co_kwonlyargcount and not code.co_posonlyargcount:
            names = code.co_varnames[inner is not function : code.co_argcount]
            required = names[: max(0, len(names) - len(inner.__defaults__ or ()))]
            rest, others = bool(flags & inspect.CO_VARARGS), bool(flags & inspect.CO_VARKEYWORDS)
            return Parameters((), names, (), required, rest, others)
    found = inspect.signature(function).parameters.values()
    kinds = inspect.Parameter
    single = [p for p in found if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    return Parameters(
        tuple(p.name for p in single if p.kind is kinds.POSITIONAL_ONLY),
        tuple(p.name for p in single if p.kind is not kinds.POSITIONAL_ONLY),
        tuple(p.name for p in single if p.kind is kinds.KEYWORD_ONLY),
        tuple(p.name for p in single if p.default is p.empty),
        any(p.kind is kinds.VAR_POSITIONAL for p in found),
        any(p.kind is kinds.VAR_KEYWORD for p in found),
    )


def required_arguments(function: Callable[..., Any]) -> int | None:
    """Return how many positional parameters have no default; `None` if it takes `*args`.

    Raises:
        TypeError: A keyword-only parameter has no default, so it can never be called.
    """
    try:
        takes = parameters(function)
    except ValueError:  # some builtins have none
        return None
    if takes.rest:
        return None
    for name in takes.required:
        if name in takes.only_named:
            raise TypeError(f"{name} is keyword-only and has no default")
    return len(takes.required)

"""What can be said of a function before it is called: its name, and whether it is async."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Final

__all__ = ["is_async", "may_be_awaited", "name_of"]

_TESTS: Final = (
    inspect.iscoroutinefunction,
    inspect.isasyncgenfunction,
    inspect.isgeneratorfunction,
)


def name_of(fn: object) -> str:
    """Return the qualified name of a function, or its representation."""
    return getattr(fn, "__qualname__", None) or repr(fn)


def is_async(fn: Any) -> bool:
    """Return whether calling a function only makes a coroutine or a generator.

    A decorator that keeps the function under `__wrapped__` (`functools.wraps`) counts as async if
    either of the two is.
    """
    while True:
        call = getattr(type(fn), "__call__", None)  # noqa: B004
        if any(test(one) for test in _TESTS for one in (fn, call)):
            return True
        inner = fn.func if isinstance(fn, functools.partial) else getattr(fn, "__wrapped__", None)
        if inner is None:
            return False
        fn = inner


def may_be_awaited(fn: Any) -> bool:
    """Return whether a function is async, or a lambda: it may pass an awaitable on."""
    return is_async(fn) or getattr(fn, "__name__", "") == "<lambda>"

"""What a plugin in one file declares with decorators: calls of the context's methods, by name.

`@plugin.route("GET", "/")` is kept as the name `route`, its arguments and the function below it.
When the plugin loads, `context.add_route` (or `context.route`) is called with them. So a verb that
any other plugin attaches to contexts is a decorator too, and the kernel knows none of them.

Cost: one signature is read for each declaration, when the plugin loads.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from ..errors import Fault, LoadError, VekoError, text_of

__all__ = ["Declarations", "Decorator"]

_F = TypeVar("_F", bound=Callable[..., Any])
_FUNCTION: Final = ("fn", "handler")
"""What context methods call the parameter that takes the function."""


class _Declaration:
    """One call of a context's method, and the line that declares it."""

    __slots__ = ("args", "fn", "kwargs", "line", "path", "verb")

    def __init__(
        self, verb: str, args: tuple[object, ...], kwargs: dict[str, Any], path: str, line: int
    ) -> None:
        self.verb = verb
        self.args = args
        self.kwargs = kwargs
        self.fn: Callable[..., Any] | None = None
        self.path = path
        self.line = line

    def __call__(self, fn: _F) -> _F:
        if self.fn is not None:
            raise self.error(f"decorates {self.fn.__qualname__} already: call plugin.{self} again")
        if not callable(fn):
            raise self.error(f"decorates {fn!r}, which is no function")
        self.fn = fn
        return fn

    def __str__(self) -> str:
        given = [repr(one) for one in self.args]
        given += [f"{key}={value!r}" for key, value in self.kwargs.items()]
        return f"{self.verb}({', '.join(given)})"

    @property
    def complete(self) -> bool:
        """Whether it has its function."""
        return self.fn is not None or not self.kwargs.keys().isdisjoint(_FUNCTION)

    def error(self, message: str) -> VekoError:
        """Return an error about this declaration."""
        return VekoError(f"@plugin.{self.verb} {message}", path=self.path, line=self.line)

    def call(self, context: Any) -> None:
        """Call the context's method."""
        method = self._method(context)
        if self.fn is None:
            method(*self.args, **self.kwargs)
            return
        named = [*inspect.signature(method).parameters.values()]
        for index, parameter in enumerate(named):
            if parameter.name not in _FUNCTION:
                continue
            if parameter.kind is parameter.KEYWORD_ONLY:
                method(*self.args, **self.kwargs, **{parameter.name: self.fn})
                return
            if index <= len(self.args):
                before, after = self.args[:index], self.args[index:]
                method(*before, self.fn, *after, **self.kwargs)
                return
            method(*self.args, **self.kwargs, **{parameter.name: self.fn})
            return
        method(*self.args, self.fn, **self.kwargs)

    def _method(self, context: Any) -> Callable[..., object]:
        try:
            method: Callable[..., object] = getattr(context, f"add_{self.verb}")
        except AttributeError as error:
            try:
                method = getattr(context, self.verb)
            except AttributeError:
                raise error from None  # it says why the verb is not there, if that is known
        return method


class Declarations:
    """The declarations of a plugin, in their order."""

    def __init__(self) -> None:
        self._all: list[_Declaration] = []

    def add(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Keep a declaration; return its decorator, or the function if that was given."""
        frame = sys._getframe(2)
        path, line = frame.f_code.co_filename, frame.f_lineno
        made = _Declaration(verb, args, kwargs, path, line)
        self._all.append(made)
        if len(args) == 1 and not kwargs and callable(args[0]):  # @plugin.middleware
            made.args = ()
            return made(args[0])
        return made

    def calls(self) -> tuple[tuple[str, tuple[Any, ...], Callable[..., Any] | None], ...]:
        """Return the verb, the arguments and the function of each."""
        return tuple((one.verb, one.args, one.fn) for one in self._all)

    def faults(self) -> Iterator[Fault]:
        """Yield the declarations that decorate no function."""
        for one in self._all:
            if not one.complete:
                yield Fault(
                    f"plugin.{one} (line {one.line})",
                    "decorates no function: write it as a decorator, with @",
                )

    def apply(self, context: Any) -> None:
        """Call the context's methods.

        Raises:
            LoadError: A method does not exist, or raised something else than a `VekoError`.
            VekoError: A method refused its arguments. The error has the line of the declaration.
        """
        for one in self._all:
            try:
                one.call(context)
            except VekoError as error:
                if error.path is None:
                    error.path, error.line = Path(one.path), one.line
                raise
            except Exception as error:
                raise LoadError(
                    f"@plugin.{one.verb} raised {type(error).__name__}: {text_of(error)}",
                    plugin=context.name,
                    path=one.path,
                    line=one.line,
                    remedy="A decorator calls the context's method of that name, with or without "
                    "`add_`.",
                ) from error


class Decorator:
    """Declares calls of one of the context's methods: `plugin.route`."""

    __slots__ = ("_declarations", "_verb")

    def __init__(self, declarations: Declarations, verb: str) -> None:
        self._declarations = declarations
        self._verb = verb

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Give a decorator; or, with nothing but a function, declare that."""
        return self._declarations.add(self._verb, args, kwargs)

    def __repr__(self) -> str:
        return f"<decorator {self._verb}>"

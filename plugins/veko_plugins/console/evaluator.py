"""Runs the code of a console, in the application's event loop, in names that last.

Promise: whatever the code raises is an answer, even `SystemExit` and `KeyboardInterrupt`, which
would end the loop. Cost: code that does not await blocks the application for as long as it runs.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextvars
import inspect
import keyword
import linecache
import pprint
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import CodeType, TracebackType
from typing import Any, Final, NoReturn

from veko import Kernel, PluginRecord

from .messages import Done, Words

__all__ = ["Evaluator"]

_FLAGS: Final = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_MOST_WORDS: Final = 1_000
_LONGEST_VALUE: Final = 100_000
"""Characters of a value that are shown."""
_WORD: Final = re.compile(r"((?:[^\W\d]\w*\.)*)((?:[^\W\d]\w*)?)\Z")

Write = Callable[[str], object]
_write_of_console: contextvars.ContextVar[Write | None] = contextvars.ContextVar(
    "veko_console_write", default=None
)


class Evaluator:
    """The names and the code of one console.

    The names of the plugin follow it when it reloads, unless the console gives them another value.

    Args:
        manager: The manager.
        plugin: The plugin's name.

    Attributes:
        names: What the code sees, and what it has defined.
    """

    def __init__(self, manager: Any, plugin: str) -> None:
        self._manager = manager
        self._plugin = plugin
        self._context = contextvars.copy_context()
        self._files: list[str] = []
        self._current: dict[str, Any] = {}
        self.names: dict[str, Any] = {
            "__name__": "__console__",
            "__builtins__": builtins,
            "asyncio": asyncio,
            "manager": manager,
            "exit": _leave,
            "quit": _leave,
            "input": _no_input,
            "help": _Help(),
        }
        self._follow()

    @property
    def offered(self) -> tuple[str, ...]:
        """The names that a user should know."""
        return ("manager", *self._current)

    def _follow(self) -> None:
        """Give the plugin's names the values of its present generation."""
        kernel: Kernel = self._manager.kernel
        record: PluginRecord | None = kernel.get(self._plugin)
        current = record.current if record is not None else None
        debug = self._manager.debug_plugin(self._plugin) if current is not None else None
        following = {
            "plugin": record,
            "context": current.context if current is not None else None,
            "config": current.config if current is not None else None,
            "hooks": debug.hooks() if debug is not None else {},
            "module": record.module if record is not None else None,
            "debug": debug,
        }
        for name, value in following.items():
            if name not in self._current or self.names.get(name) is self._current[name]:
                self.names[name] = value
        self._current = following

    async def run(self, code: str, width: int, write: Write) -> Done:
        """Run code.

        Args:
            code: Statements; if the last is an expression, its value is shown.
            width: The width in which the value is laid out, in characters.
            write: Gets what the code prints, in this thread.
        """
        self._context.run(_write_of_console.set, _in_this_thread(write))
        with _printing():
            # In a context of the console's own, so that what it sets in variables lasts.
            return await asyncio.create_task(
                self._run(code, width), name="veko console", context=self._context
            )

    async def _run(self, code: str, width: int) -> Done:
        self._follow()
        try:
            value = await self._value(code)
            if value is None:
                return Done()
            self.names["_"] = value
            text = pprint.pformat(value, width=max(20, width), sort_dicts=False)
        except SystemExit:
            return Done(leaves=True)
        except GeneratorExit:
            raise
        except asyncio.CancelledError:
            return Done(error="it was cancelled")
        except BaseException as error:
            return Done(error=_traceback(error))
        if len(text) > _LONGEST_VALUE:
            text = f"{text[:_LONGEST_VALUE]}… ({len(text)} characters)"
        return Done(value=text)

    async def _value(self, code: str) -> Any:
        file = f"<console {len(self._files) + 1}>"
        self._files.append(file)
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        value = None
        for one in _compiled(code, file):
            value = eval(one, self.names)
            if one.co_flags & inspect.CO_COROUTINE:
                value = await value
        return value

    def complete(self, line: str) -> Words:
        """Return the words that may end a line."""
        match = _WORD.search(line)
        assert match is not None  # it matches the empty text too
        path, begun = match[1].split(".")[:-1], match[2]
        if path:
            found: list[str] = []
            with suppress(Exception):  # attributes run code
                value = {**vars(builtins), **self.names}[path[0]]
                for name in path[1:]:
                    value = getattr(value, name)
                found = dir(value)
        elif begun:
            found = [*self.names, *dir(builtins), *keyword.kwlist]
        else:
            found = []
        words = {name for name in found if name.startswith(begun)}
        if not begun.startswith("_"):
            words = {word for word in words if not word.startswith("_")}
        return Words(tuple(sorted(words)[:_MOST_WORDS]), len(begun))

    def close(self) -> None:
        """Forget what the console knows."""
        for file in self._files:
            linecache.cache.pop(file, None)
        self.names.clear()
        self._current.clear()


def _compiled(code: str, file: str) -> Iterator[CodeType]:
    """Compile code: the statements, then the last one if it is an expression."""
    tree = ast.parse(code, file)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    found = [compile(tree, file, "exec", _FLAGS, dont_inherit=True)] if tree.body else []
    if isinstance(last, ast.Expr):
        found.append(compile(ast.Expression(last.value), file, "eval", _FLAGS, dont_inherit=True))
    return iter(found)


def _traceback(error: BaseException) -> str:
    """Return the traceback without the frames of this file."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and trace is None:
        return "".join(traceback.format_exception_only(error)).rstrip()
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def _leave() -> NoReturn:
    raise SystemExit


def _no_input(prompt: object = "") -> NoReturn:
    raise RuntimeError("input() would block the application; write the value into the code")


class _Help:
    """`help(x)`, without a pager."""

    def __call__(self, *topic: object) -> None:
        import pydoc

        if topic:
            print(pydoc.plain(pydoc.render_doc(topic[0])))
        else:
            print(self)

    def __repr__(self) -> str:
        return "Type help(object) for help about object."


def _in_this_thread(write: Write) -> Write:
    loop, thread = asyncio.get_running_loop(), threading.get_ident()

    def anywhere(text: str) -> None:
        if threading.get_ident() == thread:
            write(text)
        else:
            loop.call_soon_threadsafe(write, text)

    return anywhere


class _Out:
    """Standard output while consoles run code: what that code prints goes to its console."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.users = 0

    def write(self, text: str) -> int:
        """Write to the console whose code calls, or else to the real output."""
        write = _write_of_console.get()
        if write is None:
            return int(self.real.write(text))
        write(text)
        return len(text)

    def isatty(self) -> bool:
        """Return whether it is a terminal; a console's client lays out its own."""
        return _write_of_console.get() is None and bool(self.real.isatty())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


_outs: Final[list[_Out]] = []


@contextmanager
def _printing() -> Iterator[None]:
    """Let what consoles print inside go to them."""
    if not _outs:
        _outs.append(_Out(sys.stdout))
        sys.stdout = _outs[0]
    out = _outs[0]
    out.users += 1
    try:
        yield
    finally:
        out.users -= 1
        if not out.users:
            _outs.clear()
            if sys.stdout is out:
                sys.stdout = out.real

"""Names for what holds an object: what it is called, by which reference it holds, in which line."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import inspect
import linecache
import logging
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import (
    AsyncGeneratorType,
    CellType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
    TracebackType,
)
from typing import Any, Final, NamedTuple

__all__ = ["Root", "Roots", "name_of", "part_of", "planted_in"]

_OURS: Final = frozenset({__name__, f"{__package__}.holders", f"{__package__}.leaks"})
_CALLS: Final = {
    "signal": ("signal.signal", "add_signal_handler"),
    "atexit": ("atexit.register",),
    "weakref.finalize": ("finalize(",),
    "weakref": ("weakref.ref(", "ref("),
    "event loop": (
        "call_later",
        "call_at",
        "call_soon",
        "add_signal_handler",
        "add_reader",
        "create_task",
    ),
    "task": ("create_task", "ensure_future", "start_soon"),
    "thread": ("Thread(", "Timer(", "submit("),
    "context variable": (".set(",),
    "logger": ("addHandler", "addFilter"),
    "C code": ("register_at_fork", "register_error", "addaudithook", ".register("),
}
"""By the beginning or a part of a holder's name: how plugins make it hold something."""
_SUSPENDED: Final = (GeneratorType, CoroutineType, AsyncGeneratorType)


class Root(NamedTuple):
    """Something that holds and has a name; its file and line if it has some."""

    name: str
    file: Path | None = None
    line: int | None = None


class Roots:
    """What ends the search for a holder: each answers with its name, file and line."""

    def __init__(self) -> None:
        self._special = dict(_running())
        self._special.update(_signal_handlers())
        self._special.update(_exit_handlers())

    def special(self, found: object) -> Root | None:
        """Return what holds an object without being visible to the garbage collector."""
        return self._special.get(id(found))

    def root(self, found: object, way: list[object]) -> Root | None:
        """Return the name of an object that holds another; `None` if something holds it in turn.

        Args:
            found: The object.
            way: What it leads to: the object that it refers to, what that refers to, and so on.
        """
        if isinstance(found, dict):
            return _module_of(found, way[0])
        if isinstance(found, type):
            return Root(f"class {found.__module__}.{found.__qualname__}", *_line_of_class(found))
        # One that was made inside another function is in turn held by something.
        if isinstance(found, FunctionType) and "<locals>" not in found.__qualname__:
            where = _at(found.__code__)
            return Root(f"function {found.__module__}.{found.__qualname__}", *where)
        if isinstance(found, ModuleType):
            return Root(f"module {found.__name__}", *_file_of(found))
        if isinstance(found, asyncio.Task):
            frames = found.get_stack(limit=1)
            where = _here(frames[-1]) if frames else (None, None)
            return Root(f"task {found.get_name()!r}", *where)
        if isinstance(found, threading.Thread):
            return Root(f"thread {found.name!r}", *_where_runs(found))
        if isinstance(found, asyncio.AbstractEventLoop):
            return Root("the event loop")
        if isinstance(found, logging.Logger):
            return Root(f"logger {found.name!r}")
        if isinstance(found, contextvars.Context):
            return Root(f"context variable {_variable(found, way)}")
        return None


def _running() -> Iterator[tuple[int, Root]]:
    """Yield the ids of local variables of running functions, which the collector does not see."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        at: FrameType | None = frame
        while at is not None:
            in_module = at.f_locals is at.f_globals  # its variables are attributes of the module
            if at.f_globals.get("__name__") not in _OURS and not in_module:
                where = f"{at.f_code.co_qualname} in thread {names.get(ident, ident)!r}"
                for name, value in _locals(at).items():
                    root = Root(f"local variable `{name}` of running {where}", *_here(at))
                    yield id(value), root
            at = at.f_back


def _locals(frame: FrameType) -> dict[str, Any]:
    """Return a frame's local variables.

    Up to Python 3.12, the frame itself keeps the dict that `f_locals` returns, and with it objects
    that the function has let go of since; so what was added is taken out of it again.
    """
    names = frame.f_locals
    found = dict(names)
    if sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        for name, value in found.items():
            if not isinstance(value, str | int | float | None):
                names.pop(name, None)
    return found


def _signal_handlers() -> Iterator[tuple[int, Root]]:
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if callable(handler):
            root = Root(f"signal handler of {signal.Signals(number).name}")
            yield id(handler), root


def _exit_handlers() -> Iterator[tuple[int, Root]]:
    """Yield the ids of functions registered with `atexit`, which lists them in no other way."""
    found: list[object] = []

    class Asked:
        def __eq__(self, other: object) -> bool:
            found.append(other)
            return False

        __hash__ = object.__hash__

        def __call__(self) -> None: ...

    atexit.unregister(Asked())  # removes what equals it: nothing does
    return ((id(one), Root("atexit")) for one in found)


def _module_of(found: dict[Any, Any], target: object) -> Root | None:
    if found is sys.modules:
        name = next((key for key, value in found.items() if value is target), "?")
        return Root(f"sys.modules[{name!r}]")
    name = found.get("__name__") if "__spec__" in found else None
    module = sys.modules.get(name) if type(name) is str else None
    if module is None or getattr(module, "__dict__", None) is not found:
        return None
    attribute = next((str(key) for key, value in found.items() if value is target), "?")
    file, _ = _file_of(module)
    line = _line_with(file, rf"^\s*(?:async def |def |class )?{re.escape(attribute)}\b\s*[:=(]")
    return Root(f"attribute `{attribute}` of module {name}", file, line)


def _file_of(module: ModuleType) -> tuple[Path | None, int | None]:
    file = getattr(module, "__file__", None)
    return (Path(file), 1) if isinstance(file, str) and file.endswith(".py") else (None, None)


def _line_of_class(found: type) -> tuple[Path | None, int | None]:
    module = sys.modules.get(found.__module__)
    file = _file_of(module)[0] if module is not None else None
    return file, _line_with(file, rf"^\s*class {re.escape(found.__name__)}\b")


def _line_with(file: Path | None, pattern: str) -> int | None:
    if file is None:
        return None
    wanted = re.compile(pattern)
    lines = enumerate(linecache.getlines(str(file)), 1)
    return next((number for number, line in lines if wanted.match(line)), 1)


def _where_runs(thread: threading.Thread) -> tuple[Path | None, int | None]:
    """Return where a thread runs: in code that is neither of the standard library nor installed."""
    frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
    library = str(Path(threading.__file__).parent)
    while frame is not None:
        if not frame.f_code.co_filename.startswith((library, "<")):
            return _here(frame)
        frame = frame.f_back
    return None, None


def _here(frame: FrameType) -> tuple[Path | None, int | None]:
    return Path(frame.f_code.co_filename), frame.f_lineno


def _at(code: CodeType) -> tuple[Path | None, int | None]:
    return Path(code.co_filename), code.co_firstlineno


def _variable(found: contextvars.Context, way: list[object]) -> str:
    """Return the name of the variable whose value leads to what is held."""
    values = {id(one) for one in way}
    return next((repr(v.name) for v, value in found.items() if id(value) in values), "(unknown)")


def name_of(found: object) -> tuple[str, str | None]:
    """Return what an object is called, and where it was defined as `file:line`."""
    if isinstance(found, MethodType):
        found = found.__func__
    if isinstance(found, FunctionType):
        code = found.__code__
        return f"function {found.__qualname__}", f"{code.co_filename}:{code.co_firstlineno}"
    if isinstance(found, type):
        functions = (one for one in vars(found).values() if isinstance(one, FunctionType))
        where = next((name_of(one)[1] for one in functions), None)
        return f"class {found.__qualname__}", where
    if isinstance(found, _SUSPENDED):
        frame = getattr(found, _frame_name(found))
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else None
        return f"{type(found).__name__} {found.__qualname__}", where
    if isinstance(found, FrameType):
        return (
            f"frame of {found.f_code.co_qualname}",
            f"{found.f_code.co_filename}:{found.f_lineno}",
        )
    if isinstance(found, ModuleType):
        return "module", None
    if isinstance(found, dict) and "__spec__" in found and "__loader__" in found:
        return "globals", None
    if isinstance(found, TracebackType):
        return "traceback", f"{found.tb_frame.f_code.co_filename}:{found.tb_lineno}"
    if type(found).__module__ == "builtins":
        return f"{type(found).__name__}", None
    return f"object of class {type(found).__qualname__}", name_of(type(found))[1]


def _frame_name(found: object) -> str:
    if isinstance(found, CoroutineType):
        return "cr_frame"
    return "gi_frame" if isinstance(found, GeneratorType) else "ag_frame"


def part_of(holder: object, target: object) -> str:
    """Return by which reference an object holds another: `[3]`, `.handler`, `variable x`."""
    if isinstance(holder, dict):
        keys = [key for key, value in list(holder.items()) if value is target]
        return f"[{_short(keys[0])}]" if keys else "a key"
    if isinstance(holder, list | tuple):
        return f"[{next((i for i, one in enumerate(holder) if one is target), '?')}]"
    if isinstance(holder, CellType):
        return "closure cell"
    if isinstance(holder, MethodType):
        return ".__self__" if holder.__self__ is target else ".__func__"
    if isinstance(holder, FunctionType):
        return _part_of_function(holder, target)
    if isinstance(holder, type):
        return "base class" if target in holder.__mro__[1:] else "class attribute"
    if isinstance(holder, functools.partial):
        return "partial.func" if holder.func is target else "partial.args"
    if isinstance(holder, BaseException):
        return f"{type(holder).__name__}.__traceback__"
    if isinstance(holder, TracebackType):
        return ".tb_frame" if holder.tb_frame is target else ".tb_next"
    if isinstance(holder, _SUSPENDED):
        frame = getattr(holder, _frame_name(holder))
        if frame is not None:
            for name, value in _locals(frame).items():
                if value is target:
                    return f"variable `{name}` of {holder.__qualname__}"
        return type(holder).__name__
    for name in _attributes(holder):
        try:
            if inspect.getattr_static(holder, name, None) is target or (
                name.startswith("_") and getattr(holder, name, None) is target
            ):
                return f"{type(holder).__name__}.{name}"
        except Exception:  # one that cannot be read is not the one that was found
            continue
    return type(holder).__name__


def _attributes(holder: object) -> list[str]:
    try:
        own = list(vars(holder))
    except TypeError:
        own = []
    slots: list[str] = []
    for one in type(holder).__mro__:
        names = vars(one).get("__slots__", ())
        slots += (names,) if isinstance(names, str) else names
    return [*own, *slots]


def _part_of_function(holder: FunctionType, target: object) -> str:
    if holder.__defaults__ is target or holder.__kwdefaults__ is target:
        return "default arguments"
    if holder.__closure__ is target:
        return "closure"
    if holder.__globals__ is target:
        return "globals"
    if holder.__annotations__ is target:
        return "annotations"
    return "attribute"


def _short(key: object) -> str:
    text = repr(key) if isinstance(key, str | int | bytes | bool) else type(key).__name__
    return text if len(text) <= 60 else f"{text[:57]}…"


def planted_in(inside: Iterable[object], source: Path | None, holder: str) -> str | None:
    """Return the line of the plugin's code that most likely made the holder hold something.

    It is looked for in its sources: a call that fills such a holder, or the name of the holder.

    Args:
        inside: What is held.
        source: The plugin's file or folder, for parts that do not know theirs.
        holder: The name of the holder.
    """
    wanted = [word for key, words in _CALLS.items() if key in holder for word in words]
    wanted += re.findall(r"`(\w+)`", holder)
    wanted += [holder.rpartition(".")[2]] if holder.startswith(("class", "function")) else []
    wanted += [holder.split("'")[1]] if holder.startswith("sys.modules") else []
    for file, text in _sources(inside, source):
        for number, line in enumerate(text.splitlines(), 1):
            code = line.partition("#")[0]
            imports = code.lstrip().startswith(("import ", "from "))
            if not imports and any(word in code for word in wanted):
                return f"{file}:{number}"
    return None


def _sources(inside: Iterable[object], source: Path | None) -> Iterator[tuple[str, str]]:
    """Yield the files of the generation, as they were when it was imported if that is known."""
    files: dict[str, None] = {}
    for one in inside:
        if isinstance(one, FunctionType):
            files[one.__code__.co_filename] = None
        names = one if isinstance(one, dict) else getattr(one, "__globals__", None)
        spec = names.get("__spec__") if isinstance(names, dict) else None
        held = getattr(getattr(getattr(spec, "loader", None), "generation", None), "sources", None)
        if isinstance(held, dict):
            for file, content in held.items():
                yield file, bytes(content).decode("utf-8", "replace")
            return
    if not files and source is not None:
        found = sorted(source.rglob("*.py")) if source.is_dir() else [source]
        files = dict.fromkeys(map(str, found))
    for file in files:
        yield file, "".join(linecache.getlines(file))

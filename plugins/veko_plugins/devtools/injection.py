"""Injected code: it runs once, before or after the `load()` of a plugin's next generation.

The idea: the code is the body of an async function in the plugin's module, with the parameters
`app`, `config`, `context` and `plugin`. What it registers belongs to the generation, as if the
plugin's own `load()` had registered it, so a reload that injects nothing removes it.

Promise: what does not compile changes nothing. If the code raises, the generation is discarded and
the one before has never stopped.
"""

from __future__ import annotations

import ast
import inspect
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from types import CodeType, ModuleType
from typing import Any, Final, Literal, get_args

import msgspec

from veko import Context, LoadError, Plugin, PluginRecord, VekoError
from veko.errors import OptionError, text_of
from veko.extend import check_text

from .._lib.versions import did_you_mean

__all__ = ["Injection", "InjectionPoint", "injecting"]

InjectionPoint = Literal["before-load", "after-load"]
_KIND: Final = "injection"
_FUNCTION: Final = "injected"
_FRAME: Final = f"async def {_FUNCTION}(app, config, context, plugin): pass"


class Injection(msgspec.Struct, frozen=True):
    """Code that was injected into a generation.

    Attributes:
        point: Where it ran.
        code: The code.
        injected_at: When it was injected, in UTC.
    """

    point: InjectionPoint
    code: str
    injected_at: datetime

    @property
    def file(self) -> str:
        """What stands for a file in tracebacks."""
        return f"<injected {self.point}>"


def injecting(
    record: PluginRecord, code: str, point: str
) -> Callable[[Plugin], AbstractContextManager[None]]:
    """Check code, and return what makes the next `load()` of a plugin run it.

    Code at the other point that runs in the present generation is injected again.

    Args:
        record: The plugin.
        code: The code.
        point: Where it runs.

    Returns:
        A function of the next version of the plugin. It returns a context manager, within which
        the version loads.

    Raises:
        OptionError: There is no such point, or the code is not valid.
    """
    if point not in get_args(InjectionPoint):
        points = get_args(InjectionPoint)
        raise OptionError(
            f"there is no injection point {point!r}",
            plugin=record.name,
            remedy=did_you_mean(str(point), points) or f"Use one of {', '.join(points)}.",
        )
    check_text("the code", code)
    wanted: dict[str, Injection] = {}
    for entry in record.current.entries if record.current is not None else ():
        if entry.kind == _KIND:
            wanted[entry.value.point] = entry.value
    wanted[point] = Injection(point, code, datetime.now(UTC))  # type: ignore[arg-type] # checked
    compiled = {one.point: (one, _compiled(record.name, one)) for one in wanted.values()}

    @contextmanager
    def around(plugin: Plugin) -> Iterator[None]:
        own, call = vars(plugin), plugin.call_life_cycle

        async def run(now: InjectionPoint, app: Any, config: Any, context: Context) -> None:
            if now in compiled:
                injection, code = compiled[now]
                context.register(_KIND, now, injection)
                await _run(injection, code, app, config, context, plugin)

        async def load(app: Any, config: Any, context: Context) -> None:
            await run("before-load", app, config, context)
            answer = call("load", app, config, context)
            if inspect.isawaitable(answer):
                await answer
            await run("after-load", app, config, context)

        def call_once(name: str, app: object, config: object, context: Any) -> Any:
            if name != "load":
                return call(name, app, config, context)
            own.pop("call_life_cycle", None)  # the same object may load again
            return load(app, config, context)

        own["call_life_cycle"] = call_once
        try:
            yield
        finally:
            own.pop("call_life_cycle", None)

    return around


def _compiled(plugin: str, injection: Injection) -> CodeType:
    """Compile code as the body of a function.

    Raises:
        OptionError: It is not valid.
    """
    frame = ast.parse(_FRAME)
    cause: Exception | None = None
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):
            body = ast.parse(injection.code, injection.file).body
            if body:
                frame.body[0].body = body  # type: ignore[attr-defined]
            compiled = compile(frame, injection.file, "exec")
        if inspect.iscoroutinefunction(_made(compiled, {})):
            return compiled
        why = "it has a `yield` outside functions"
    except SyntaxError as error:
        why, cause = f"line {error.lineno or 1}: {error.msg}", error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested too deep
        why, cause = text_of(error), error
    raise OptionError(
        f"the code cannot be injected {injection.point}: {why}",
        plugin=plugin,
        remedy="Nothing has changed; correct the code.",
    ) from cause


def _made(compiled: CodeType, names: dict[str, Any]) -> Callable[..., Any]:
    """Return the function, with these globals."""
    found: dict[str, Any] = {}
    exec(compiled, names, found)
    function: Callable[..., Any] = found[_FUNCTION]
    return function


async def _run(
    injection: Injection, code: CodeType, app: Any, config: Any, context: Context, plugin: Plugin
) -> None:
    module = plugin.module
    function = _made(code, vars(module) if isinstance(module, ModuleType) else {})
    try:
        await function(app, config, context, plugin)
    except VekoError:
        raise
    except Exception as error:
        trace = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in trace if frame.filename == injection.file]
        raise LoadError(
            f"the code injected {injection.point} raised {type(error).__name__}"
            f"{f' in line {lines[-1]}' if lines else ''}: {text_of(error)}",
            plugin=context.name,
            remedy="The plugin runs as before; correct the code.",
        ) from error

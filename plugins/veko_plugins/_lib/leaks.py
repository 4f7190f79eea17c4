"""Which ended generations of plugins are still in memory, and what holds each of them.

The idea: all code of a generation names its module, `veko_generation.shop_2`, which leaves
`sys.modules` when the generation has ended. Whatever the garbage collector still knows under such a
name was leaked, with no need to have followed it before. A plugin that was given as an object has
no such module; there its ended `Context` is looked for.

Cost: two full garbage collections, a pass over all objects, and one for each step of the path from
the leak to its holder. Of CPU, 22 to 33 ms in a process of 50,000 objects, 165 to 205 ms in one of
500,000 (`benchmarks/holders.py`), most of it for the collections. The event loop waits meanwhile.
Promise: nothing is kept alive by the search, and nothing is changed.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    ModuleType,
)
from typing import Any, Final

import msgspec

from veko import Context

from .holders import Holder, find_holders

__all__ = ["Leak", "find_leaks"]

_PREFIX: Final = "veko_generation."
_FRAMES: Final = {
    FrameType: "f_globals",
    GeneratorType: "gi_frame",
    CoroutineType: "cr_frame",
    AsyncGeneratorType: "ag_frame",
}
_TELLING: Final = frozenset({FunctionType, ModuleType, dict, *_FRAMES})
"""Types whose objects name the module that they are of, or are its names."""
_NAMELESS: Final = "C code, or the stack of a running function"


class Leak(msgspec.Struct, frozen=True):
    """Something that keeps an ended generation of a plugin in memory.

    Attributes:
        plugin: The plugin.
        generation: The module of the generation; its name if it has no module.
        held: The part of the generation that is held.
        holder: What holds it, in words.
        path: The references that lead from the holder to the part, in order.
        file: The file of the holder; `None` if it has none, as an extension.
        line: The line in that file.
        planted: The line of the plugin that most likely made the holder hold it, as `file:line`.
    """

    plugin: str
    generation: str
    held: str
    holder: str
    path: tuple[str, ...] = ()
    file: Path | None = None
    line: int | None = None
    planted: str | None = None

    def __str__(self) -> str:
        where = f" ({self.file}:{self.line})" if self.file is not None else ""
        way = f" by {' → '.join(self.path)}" if self.path else ""
        planted = f"; see {self.planted}" if self.planted else ""
        return f"{self.holder}{where} holds {self.held} of {self.generation}{way}{planted}"


def find_leaks(
    plugin: str, *, source: Path | None = None, modules: Collection[str] = ()
) -> list[Leak]:
    """Return what keeps ended generations of a plugin in memory; nothing if all were collected.

    Call it when the generation has retired: what still runs in it holds it rightly. References that
    the caller itself has (a `PluginRecord`, say) are found like any others.

    Args:
        plugin: The plugin's name.
        source: Its file or folder, which shows the line that planted a leak.
        modules: The modules of its generations, if it was not imported under its own name.
    """
    if gc.collect():  # finalizers may have let go of more
        gc.collect()
    parts = _ended_parts(plugin, modules)
    leaks: list[Leak] = []
    for generation, found in parts.items():
        holders = find_holders(found, source) or [Holder("a part of it", _NAMELESS)]
        leaks += [
            Leak(plugin, generation, h.held, h.name, h.path, h.file, h.line, h.planted)
            for h in holders
        ]
        holders.clear()
        found.clear()
    return leaks


def _ended_parts(plugin: str, modules: Collection[str]) -> dict[str, list[object]]:
    """Return what is in memory of ended generations, by generation."""
    base = re.escape(re.sub(r"\W", "_", plugin))
    own = re.compile(rf"{re.escape(_PREFIX)}{base}_\d+\Z")
    roots: dict[str, str | None] = {}

    def root_of(module: object) -> str | None:
        """Return the ended generation that a module is of."""
        if type(module) is not str or not module.startswith(_PREFIX):
            return None
        if module not in roots:
            root = ".".join(module.split(".")[:2])
            ended = root not in sys.modules and (own.match(root) or root in modules)
            roots[module] = root if ended else None
        return roots[module]

    parts: dict[str, list[object]] = {}
    contexts: list[Context] = []
    for root, part in _all_parts(root_of, contexts):
        parts.setdefault(root, []).append(part)
    if not parts:
        ended = [one for one in contexts if one.name == plugin and _has_ended(one)]
        if ended:
            parts = {plugin: list[object](ended)}
    return parts


def _all_parts(root_of: Any, contexts: list[Context]) -> Iterator[tuple[str, object]]:
    """Yield each object that names an ended generation, with its root.

    Almost all objects are passed over by their type alone: a process may have a million.

    Args:
        root_of: Returns the ended generation that a module is of.
        contexts: Gets all contexts.
    """
    by_globals: dict[int, str | None] = {}

    def root_of_globals(names: dict[str, Any]) -> str | None:
        key = id(names)
        if key not in by_globals:
            by_globals[key] = root_of(names.get("__name__"))
        return by_globals[key]

    objects = gc.get_objects()
    classes, contextual = _kinds_of(type), _kinds_of(Context)
    telling = {*_TELLING, *classes, *contextual}
    ended: dict[type, str] = {}
    for found in [one for one in objects if type(one) in telling]:
        kind = type(found)
        root: str | None = None
        if kind is dict:
            if "__spec__" in found and "__loader__" in found:
                root = root_of(found.get("__name__"))
        elif kind is FunctionType:
            root = root_of_globals(found.__globals__)
        elif kind is ModuleType:
            root = root_of(vars(found).get("__name__"))
        elif kind in classes:
            root = root_of(type.__dict__["__module__"].__get__(found))
            if root is not None:
                ended[found] = root
        elif kind in contextual:
            contexts.append(found)
        else:
            frame = found if kind is FrameType else getattr(found, _FRAMES[kind])
            root = root_of_globals(frame.f_globals) if frame is not None else None
        if root is not None:
            yield root, found
    for found in [one for one in objects if type(one) in ended] if ended else ():
        yield ended[type(found)], found


def _kinds_of(base: type) -> set[type]:
    """Return a class and all that inherit from it."""
    kinds: set[type] = {base}
    pending: list[type] = [base]
    while pending:
        found: list[type] = type.__subclasses__(pending.pop())
        for kind in found:
            if kind not in kinds:
                kinds.add(kind)
                pending.append(kind)
    return kinds


def _has_ended(context: Context) -> bool:
    """Return whether a context is not that of its plugin's running generation."""
    plugin = context.plugin
    if plugin.state in ("loading", "unloading") or plugin.retiring:
        return False
    return plugin.current is None or plugin.current.context is not context

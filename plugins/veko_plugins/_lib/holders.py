"""What holds objects that should be gone: the paths of references from outside to them.

The idea is trial deletion, as the garbage collector does it. The objects in question refer to each
other; those with more references than that explains are held from outside. From these few the
search goes backwards, one pass of `gc.get_referrers` a step, until it reaches something that has a
name: a module, a class, a function, a task, a thread, a running frame, a handler of a signal.

Cost: a pass over all references in the process for each step; a path has one to six steps.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from pathlib import Path
from types import (
    AsyncGeneratorType,
    CellType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MappingProxyType,
    MethodType,
    ModuleType,
    TracebackType,
)
from typing import Any, Final

import msgspec

from .holder_names import Root, Roots, name_of, part_of, planted_in

__all__ = ["Holder", "find_holders"]

_STEPS: Final = 12
_MOST: Final = 5
"""Holders that are reported of one generation."""
_WIDEST: Final = 400
"""Objects that a step looks for; a pass takes longer the more they are."""
_BETWEEN: Final = frozenset({
    list, tuple, set, frozenset, CellType, MethodType, property, staticmethod, classmethod,
    MappingProxyType, TracebackType,
})  # fmt: skip
"""Types whose objects belong to what refers to them."""
_FRAMES: Final = {
    FrameType: "f_globals",
    GeneratorType: "gi_frame",
    CoroutineType: "cr_frame",
    AsyncGeneratorType: "ag_frame",
}


class Holder(msgspec.Struct, frozen=True):
    """One holder; see `Leak` for the fields."""

    held: str
    name: str
    path: tuple[str, ...] = ()
    file: Path | None = None
    line: int | None = None
    planted: str | None = None


class _Step:
    """An object on the way back from a part to its holder."""

    __slots__ = ("before", "found")

    def __init__(self, found: object, before: _Step | None) -> None:
        self.found = found
        self.before = before

    def way(self) -> list[object]:
        """Return what it leads to, up to the part."""
        found: list[object] = []
        at = self.before
        while at is not None:
            found.append(at.found)
            at = at.before
        return found


def find_holders(parts: list[object], source: Path | None = None) -> list[Holder]:
    """Return what holds some objects from outside.

    Args:
        parts: The objects, which belong together. They are not kept.
        source: The file or folder with their code, for parts that do not know theirs.
    """
    inside = _closure(parts)
    search = _Search(inside, source, {id(parts), id(inside)})
    steps = [_Step(one, None) for one in _held_from_outside(inside, parts)]
    for step in steps:
        search.take(step, search.roots.special(step.found))
    for _ in range(_STEPS):
        if not steps or len(search.holders) >= _MOST:
            break
        steps = search.further(steps[:_WIDEST])
    found = list(search.holders.values()) or search.orphans
    inside.clear()
    return found[:_MOST]


class _Search:
    """The way back from parts to their holders.

    Args:
        inside: The parts and what belongs to them, by id.
        source: The file or folder with their code.
        ours: Ids of what this search itself made.

    Attributes:
        holders: The holders that were found, without doubles.
        orphans: Objects on the way that no Python object refers to; reported if nothing else is.
    """

    def __init__(self, inside: dict[int, object], source: Path | None, ours: set[int]) -> None:
        self.roots = Roots()
        self.holders: dict[tuple[str, Path | None, int | None], Holder] = {}
        self.orphans: list[Holder] = []
        self._inside = inside
        self._seen = set(inside)
        self._ours = ours
        self._source = source

    def further(self, steps: list[_Step]) -> list[_Step]:
        """Go one step back, and take note of the holders that are reached."""
        wanted = {id(step.found): step for step in steps}
        targets = [step.found for step in steps]
        found = gc.get_referrers(*targets)
        own = {id(targets), id(wanted), id(found), id(steps), id(sys._getframe())}
        following: list[_Step] = []
        held: set[int] = set()
        for referrer in found:
            key = id(referrer)
            if key in own or key in self._ours or type(referrer) is _Step:
                continue
            references = [id(one) for one in gc.get_referents(referrer) if id(one) in wanted]
            if key in self._inside or not references:
                continue
            held.update(references)
            if key in self._seen:
                continue
            self._seen.add(key)
            step = _Step(referrer, wanted[references[0]])
            root = self.roots.root(referrer, step.way()) or self.roots.special(referrer)
            if not self.take(step, root):
                following.append(step)
        for key, step in wanted.items():
            if key not in held:
                self._note_orphan(step)
        found.clear()
        targets.clear()
        return following

    def take(self, step: _Step, root: Root | None) -> bool:
        """Note a holder, unless it is none; return whether it is one."""
        if root is None:
            return False
        holder = self._holder(step, root)
        self.holders.setdefault((holder.name, holder.file, holder.line), holder)
        return True

    def _note_orphan(self, step: _Step) -> None:
        what, where = name_of(step.found)
        file, _, line = (where or "").rpartition(":")
        root = Root(f"C code, through {what}", Path(file) if file else None, int(line or 0) or None)
        self.orphans.append(self._holder(step, root))

    def _holder(self, step: _Step, root: Root) -> Holder:
        way: list[str] = []
        at = step
        while at.before is not None:
            way.append(part_of(at.found, at.before.found))
            at = at.before
        held, where = name_of(at.found)
        name, file, line = root
        planted = planted_in(self._inside.values(), self._source, name)
        source = planted or where
        if file is None and source is not None:  # the interpreter holds it: this line says most
            path, _, number = source.rpartition(":")
            file, line = Path(path), int(number)
        return Holder(held, name, tuple(way), file, line, planted)


def _held_from_outside(inside: dict[int, object], parts: list[object]) -> list[object]:
    """Return those that have more references than the others inside explain."""
    counts = Counter(id(one) for one in gc.get_referents(*inside.values()))
    counts.update(map(id, parts))
    probe: list[object] = []  # shows how many references this function itself makes
    inside[id(probe)] = probe
    everything = list(inside.values())
    spare = 0
    for one in reversed(everything):
        if one is probe:
            spare = sys.getrefcount(one) - 1  # the name `probe`
            break
    found = []
    for one in reversed(everything):
        if one is not probe and sys.getrefcount(one) - counts[id(one)] > spare:
            found.append(one)
    del inside[id(probe)]
    return found


def _closure(parts: list[object]) -> dict[int, object]:
    """Return the parts, by id, with the containers and the like between them."""
    around = {id(one): one for one in parts}
    names = {id(one) for one in parts if type(one) is dict}
    names |= {id(vars(one)) for one in parts if isinstance(one, ModuleType)}
    names |= {id(one.__globals__) for one in parts if type(one) is FunctionType}
    references: list[tuple[int, int]] = []
    pending = list(parts)
    while pending:
        following = []
        for holder in pending:
            for one in gc.get_referents(holder):
                key = id(one)
                if key not in around:
                    if not gc.is_tracked(one) or not _belongs(one, names):
                        continue
                    around[key] = one
                    following.append(one)
                references.append((key, id(holder)))
        pending = following
    # What refers to no part holds none: a list that the plugin imported from elsewhere, say.
    holders: dict[int, list[int]] = {}
    for key, holder_id in references:
        holders.setdefault(key, []).append(holder_id)
    inside: dict[int, object] = {}
    keys = [id(one) for one in parts]
    while keys:
        key = keys.pop()
        if key not in inside:
            inside[key] = around[key]
            keys += holders.get(key, ())
    return inside


def _belongs(one: Any, names: set[int]) -> bool:
    """Return whether an object that is referred to from inside is inside too."""
    kind = type(one)
    if kind is FunctionType:
        return id(one.__globals__) in names
    if kind is dict:
        return id(one) in names or ("__builtins__" not in one and one is not sys.modules)
    if kind in _FRAMES:
        frame = one if kind is FrameType else getattr(one, _FRAMES[kind])
        return frame is not None and id(frame.f_globals) in names
    return kind in _BETWEEN

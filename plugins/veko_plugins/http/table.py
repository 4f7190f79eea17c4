"""The routing table: an immutable tree of path segments.

A change copies the nodes from the root to the route and shares all others, so adding or removing
one route among thousands rebuilds none of the others, and a request keeps the table that it began
with. Static segments come before typed ones (`int`, `float`, `uuid`), these before `str`, and `str`
before `path`, from left to right, with backtracking: the first shape that fits the path *and* has
the method answers. If shapes fit but none has the method, the answer is the union of their methods.

Cost: a dictionary lookup per segment; no node is visited twice. A trailing slash is ignored; empty
segments elsewhere match only a `path` parameter. A path with a `.` or `..` among its segments,
however it was encoded, matches nothing: clients resolve these themselves (RFC 3986, 5.2.4), and the
ones that remain are meant to lead out of a folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from .._lib.route_paths import TYPED, Segment, parse_path

__all__ = ["HANDSHAKE", "Found", "Table", "Taken"]

T = TypeVar("T")

_KNOWN: Final = 4_096
"""Paths without parameters that a table remembers; only paths that have matched."""

HANDSHAKE: Final = "WebSocket handshake"
"""The method of WebSockets in the table: one that no HTTP request can have."""


class Taken(Exception):
    """A route of this shape and method is in the table already.

    Attributes:
        value: The endpoint that the table has.
        wanted: The endpoint that was to be added.
    """

    def __init__(self, value: object, wanted: object) -> None:
        super().__init__(value, wanted)
        self.value = value
        self.wanted = wanted


class Found(NamedTuple, Generic[T]):
    """The result of a match.

    Attributes:
        value: The endpoint; `None` if there is none for the method.
        params: The path parameters, converted.
        allowed: If there is no endpoint, the methods that the path has: empty if no route has the
            path, `HANDSHAKE` alone if only a WebSocket has it.
    """

    value: T | None
    params: dict[str, object]
    allowed: frozenset[str] = frozenset()


class _Leaf(Generic[T]):
    __slots__ = ("names", "value")

    def __init__(self, value: T, names: tuple[str, ...]) -> None:
        self.value = value
        self.names = names


class _Node(Generic[T]):
    """A node of the tree. `edit` marks the only change that may still write to it."""

    __slots__ = ("edit", "leaves", "rest", "static", "typed", "word")

    def __init__(self, edit: object) -> None:
        self.edit = edit
        self.static: dict[str, _Node[T]] = {}
        self.typed: dict[str, _Node[T]] = {}
        self.word: _Node[T] | None = None
        self.rest: dict[str, _Leaf[T]] = {}
        self.leaves: dict[str, _Leaf[T]] = {}

    def copy(self, edit: object) -> _Node[T]:
        if self.edit is edit:
            return self
        twin: _Node[T] = _Node(edit)
        twin.static, twin.typed = self.static.copy(), self.typed.copy()
        twin.rest, twin.leaves = self.rest.copy(), self.leaves.copy()
        twin.word = self.word
        return twin

    def child(self, segment: Segment, edit: object) -> _Node[T]:
        """Return the child that a segment leads to, for writing."""
        if segment.converter == "str":
            self.word = self.word.copy(edit) if self.word else _Node(edit)
            return self.word
        children = self.typed if segment.converter else self.static
        key = segment.converter or segment.text
        found = children.get(key)
        children[key] = child = found.copy(edit) if found else _Node(edit)
        if found is None and segment.converter:
            self.typed = {name: children[name] for name in TYPED if name in children}
        return child

    def drop(self, segment: Segment) -> None:
        if segment.converter == "str":
            self.word = None
        elif segment.converter:
            del self.typed[segment.converter]
        else:
            del self.static[segment.text]

    @property
    def empty(self) -> bool:
        return not (self.leaves or self.static or self.typed or self.rest or self.word)


Row = tuple[str, str, T]
"""A method, a path and an endpoint."""


class Table(Generic[T]):
    """An immutable set of routes.

    Args:
        rows: Methods, paths and endpoints.

    Attributes:
        known: What has matched, by method and path, where the path has no parameters.
        size: How many routes it has.
    """

    __slots__ = ("__weakref__", "_root", "known", "size")

    def __init__(self, rows: Iterable[Row[T]] = ()) -> None:
        self._root: _Node[T] = _Node(None)
        self.known: dict[tuple[str, str], T] = {}
        self.size = 0
        made = self.changed(add=rows)
        self._root, self.size = made._root, made.size

    def changed(
        self, *, remove: Iterable[tuple[str, str]] = (), add: Iterable[Row[T]] = ()
    ) -> Table[T]:
        """Return a table with some routes removed and others added.

        Args:
            remove: Methods and paths; unknown ones are ignored.
            add: Methods, paths and endpoints.

        Raises:
            Taken: The table has a route of this method and shape.
            RouteError: A path is not valid.
        """
        edit = object()
        made: Table[T] = Table.__new__(Table)
        made._root, made.size, made.known = self._root, self.size, {}
        for method, path in remove:
            segments = parse_path(path)
            if _has(made._root, segments, method):
                made._root = made._root.copy(edit)
                _remove(made._root, segments, method, edit)
                made.size -= 1
        for method, path, value in add:
            segments = parse_path(path)
            made._root = node = made._root.copy(edit)
            names = tuple(s.text for s in segments if s.converter)
            whole = bool(segments) and segments[-1].converter == "path"
            for segment in segments[:-1] if whole else segments:
                node = node.child(segment, edit)
            leaves = node.rest if whole else node.leaves
            if method in leaves:
                raise Taken(leaves[method].value, value)
            leaves[method] = _Leaf(value, names)
            made.size += 1
        return made

    def match(self, method: str, path: str) -> Found[T]:
        """Find the endpoint that answers a request.

        Where a shape has no `HEAD` of its own, its `GET` answers `HEAD`.

        Args:
            method: The method in capitals.
            path: The decoded path.

        Returns:
            The endpoint and the path parameters, or the methods that the path has.
        """
        known = self.known.get((method, path))
        if known is not None:
            return Found(known, {})
        parts = path.split("/")
        if parts[0] or ("/." in path and (".." in parts or "." in parts)):
            return Found(None, {})
        end = len(parts) if parts[-1] else len(parts) - 1
        allowed: set[str] = set()
        # Where to backtrack to if this node leads nowhere, the more precise last.
        others: list[tuple[_Node[T], int, tuple[object, ...], bool]] = []
        values: tuple[object, ...] = ()
        node, index, whole = self._root, 1, False
        while True:
            leaves: dict[str, _Leaf[T]] | None = None
            if whole:
                leaves, values = node.rest, (*values, "/".join(parts[index:]))
            elif index >= end:
                leaves = node.leaves
            else:
                part = parts[index]
                if node.rest:
                    others.append((node, index, values, True))
                index += 1
                child = node.static.get(part)
                if child is None and part and not node.typed:
                    child, values = node.word, (*values, part)
                elif part:
                    _push(others, node, part, index, values)
                if child is not None:
                    node = child
                    continue
            if leaves:
                leaf = leaves.get(method)
                if leaf is None and method == "HEAD":
                    leaf = leaves.get("GET")
                if leaf is not None:
                    names = leaf.names
                    if names:
                        return Found(leaf.value, dict(zip(names, values, strict=True)))
                    if len(self.known) < _KNOWN:
                        self.known[method, path] = leaf.value
                    return Found(leaf.value, {})
                allowed.update(leaves)
            if not others:
                break
            node, index, values, whole = others.pop()
        if allowed <= {HANDSHAKE}:
            return Found(None, {}, frozenset(allowed))
        if "GET" in allowed:
            allowed.add("HEAD")
        return Found(None, {}, frozenset((*allowed - {HANDSHAKE}, "OPTIONS")))

    def __iter__(self) -> Iterator[T]:
        """Yield every endpoint once."""
        pending = [self._root]
        while pending:
            node = pending.pop()
            for leaf in (*node.leaves.values(), *node.rest.values()):
                yield leaf.value
            pending.extend((*node.static.values(), *node.typed.values()))
            if node.word:
                pending.append(node.word)

    def __len__(self) -> int:
        return self.size


def _push(
    others: list[tuple[_Node[T], int, tuple[object, ...], bool]],
    node: _Node[T],
    part: str,
    index: int,
    values: tuple[object, ...],
) -> None:
    """Note the children to backtrack to: the parameters that fit a segment."""
    if node.word is not None:
        others.append((node.word, index, (*values, part), False))
    for name in reversed(node.typed):
        fits, convert = TYPED[name]
        if fits(part):
            others.append((node.typed[name], index, (*values, convert(part)), False))


def _leaves(node: _Node[T] | None, segments: tuple[Segment, ...]) -> dict[str, _Leaf[T]]:
    for segment in segments:
        if node is None:
            return {}
        if segment.converter == "path":
            return node.rest
        if segment.converter == "str":
            node = node.word
        elif segment.converter:
            node = node.typed.get(segment.converter)
        else:
            node = node.static.get(segment.text)
    return node.leaves if node else {}


def _has(node: _Node[T], segments: tuple[Segment, ...], method: str) -> bool:
    return method in _leaves(node, segments)


def _remove(node: _Node[T], segments: tuple[Segment, ...], method: str, edit: object) -> None:
    """Remove a route from a branch that may be written to, and the nodes that are then empty."""
    if not segments:
        del node.leaves[method]
    elif segments[0].converter == "path":
        del node.rest[method]
    else:
        child = node.child(segments[0], edit)
        _remove(child, segments[1:], method, edit)
        if child.empty:
            node.drop(segments[0])

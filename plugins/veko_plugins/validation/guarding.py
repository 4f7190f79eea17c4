"""Which events a plugin guards, read from its source without running it.

It finds calls such as `context.hook("request:start", check)`, where the event is written out and
`observe=True` is not among the arguments, and what the manifest lists in `hooks`.

Cost: one walk over the syntax trees of the plugin's own files.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from veko import VekoError

from .._source.bytecode import read_source

__all__ = ["hooked_in"]


def hooked_in(
    path: Path, guarded: Collection[str], covers: Callable[[str, str], bool], limit: int
) -> tuple[str, ...]:
    """Return the events, of some, that the source of a plugin hooks without observing them.

    Args:
        path: The plugin's file or folder.
        guarded: The events.
        covers: Tells whether a pattern matches an event.
        limit: The largest file that is read, in bytes.
    """
    hooked = {event for file in _files(path) for event in _hooked(file, limit)}
    return tuple(
        event for event in guarded if any(one == event or covers(one, event) for one in hooked)
    )


def _files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return (path,)
    return sorted(path.rglob("*.py")) if path.joinpath("__init__.py").is_file() else ()


def _hooked(file: Path, limit: int) -> Iterator[str]:
    try:
        tree = ast.parse(read_source(str(file), limit)[0])
    except (VekoError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # importing it tells what is wrong
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="hook"), args=[ast.Constant(value=str(event)), *_]
            ):
                if not any(_observes(keyword) for keyword in node.keywords):
                    yield event


def _observes(keyword: ast.keyword) -> bool:
    match keyword:
        case ast.keyword(arg="observe", value=ast.Constant(value=False)):
            return False
        case ast.keyword(arg="observe"):
            return True
    return False

"""What a route may be: the methods of HTTP, and the grammar of paths such as `/users/{id:int}`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Final, NamedTuple
from uuid import UUID

from veko.errors import RouteError

__all__ = ["CONVERTERS", "METHODS", "TYPED", "Segment", "parse_path"]

METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
)

_DIGITS: Final = 19
"""Digits of the longest integer that matches (64 bits). Longer ones cost quadratic time."""

_INT = re.compile(rf"-?[0-9]{{1,{_DIGITS}}}", re.ASCII)
_FLOAT = re.compile(rf"-?[0-9]{{1,{_DIGITS}}}(?:\.[0-9]{{1,{_DIGITS}}})?", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_SEGMENT = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}", re.ASCII)

TYPED: Final[dict[str, tuple[Callable[[str], object], Callable[[str], object]]]] = {
    "int": (_INT.fullmatch, int),
    "uuid": (_UUID.fullmatch, UUID),
    "float": (_FLOAT.fullmatch, float),
}
"""The typed converters in the order in which they are tried."""

CONVERTERS: Final = (*TYPED, "str", "path")


class Segment(NamedTuple):
    """One segment of a route's path: fixed text, or a parameter with its converter."""

    text: str
    converter: str = ""


@functools.lru_cache(maxsize=4_096)  # a path is parsed when it is registered and at each change
def parse_path(path: str) -> tuple[Segment, ...]:
    """Split a route's path into segments.

    Args:
        path: The path, as `/users/{id:int}`.

    Raises:
        RouteError: It does not start with a slash, or has an empty or a dot segment, an unknown
            converter, a name twice, or a `path` parameter that is not the last segment.
    """
    if not path.startswith("/"):
        raise RouteError(f"the path {path!r} does not start with '/'", remedy=f"Use '/{path}'.")
    segments: list[Segment] = []
    names: set[str] = set()
    parts = path[1:].removesuffix("/").split("/") if path != "/" else []
    for index, part in enumerate(parts):
        if not part:
            raise RouteError(f"the path {path!r} has an empty segment", remedy="Remove it.")
        if part in (".", ".."):
            raise RouteError(f"the path {path!r} has the segment {part!r}", remedy="Remove it.")
        match = _SEGMENT.fullmatch(part)
        if match is None:
            if "{" in part or "}" in part:
                raise RouteError(
                    f"the path {path!r} has the segment {part!r}",
                    remedy="A parameter is a whole segment, '{name}' or '{name:converter}'.",
                )
            segments.append(Segment(part))
            continue
        name, converter = match[1], match[2] or "str"
        if converter not in CONVERTERS:
            raise RouteError(
                f"the path {path!r} has the unknown converter {converter!r}",
                remedy=f"Use one of {', '.join(CONVERTERS)}.",
            )
        if name in names:
            raise RouteError(
                f"the path {path!r} has the parameter {name!r} twice", remedy="Rename one of them."
            )
        if converter == "path" and index + 1 < len(parts):
            raise RouteError(
                f"the path {path!r} continues after {part!r}, which takes all the rest",
                remedy="Move it to the end.",
            )
        names.add(name)
        segments.append(Segment(name, converter))
    return tuple(segments)

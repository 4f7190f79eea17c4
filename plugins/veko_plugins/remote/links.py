"""Symbolic links in a path, followed one by one, so that each can be refused.

Promise: what is returned has no link in it, as long as nothing on the way is replaced; the
launcher opens it without following any.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["LinkError", "is_below", "real", "without_links"]

_MAX_LINKS: Final = 40  # as the kernel has it


class LinkError(ValueError):
    """A path leads through a symbolic link that is not followed; the text says which."""


def without_links(path: Path, is_closed: Callable[[Path], bool]) -> Path:
    """Return an absolute path without links; components that are missing stay as they are.

    Args:
        path: The path.
        is_closed: Returns whether a link in this folder is not followed.

    Raises:
        LinkError: A link lies in a folder that is closed, or there are too many.
    """
    at = Path(path.anchor)
    pending, links = _parts(path), 0
    while pending:
        part = pending.pop()
        if part == os.pardir:
            at = at.parent
            continue
        here = at / part
        try:
            target = here.readlink()
        except OSError:  # no link, or missing
            at = here
            continue
        links += 1
        if links > _MAX_LINKS:
            raise LinkError(f"{path} leads through too many symbolic links")
        if is_closed(at):
            raise LinkError(
                f"{here} is a symbolic link that the plugin may have made; name where it leads to"
            )
        if target.is_absolute():
            at = Path(target.anchor)
        pending += _parts(target)
    return at


def real(path: str | Path) -> Path:
    """Return a path with its links resolved, also if it is missing, or they lead in a circle."""
    return Path(os.path.realpath(path))


def is_below(path: Path, folder: Path) -> bool:
    """Return whether a path is a folder, or lies in it; both without links."""
    return path == folder or folder in path.parents


def _parts(path: Path) -> list[str]:
    """Return the components of a path without its root, last first."""
    return [part for part in reversed(path.parts) if part != path.anchor]

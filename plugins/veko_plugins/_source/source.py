"""Where a plugin is and what its source says of it: the words that discovery and loader share.

Promise: plain data, and nothing here runs a plugin's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec

from veko import Plugin, VekoError

__all__ = ["Form", "Outline", "Problem", "Source"]

Form = str | Path | Plugin | type[Plugin] | Mapping[str, Any] | ModuleType
"""What a plugin may be given as: a name, a path, or the plugin itself."""


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """What a source says of its plugin, read without running it; an order can be made of it.

    Attributes:
        fields: All manifest fields that are written as literals.
    """

    name: str
    version: str
    dependencies: tuple[str, ...] = ()
    priority: float = 10
    fields: dict[str, object] = {}


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that was found.

    Attributes:
        name: Its own name if `outline` tells it, else made of the name of its file.
        kind: `file`, `package` or `entry-point`.
        path: The file, or the folder of a package.
        entry_point: The entry point, if it is one; its distribution is `entry_point.dist`.
        outline: What could be told without running it, or `None`: then it must be imported first.
        fields: What `plugin.toml` says.
    """

    name: str
    kind: Literal["file", "package", "entry-point"]
    path: Path | None = None
    entry_point: EntryPoint | None = None
    outline: Outline | None = None
    fields: dict[str, object] = {}

    @property
    def file(self) -> Path | None:
        """The file that is imported."""
        if self.path is not None and self.kind == "package":
            return self.path / "__init__.py"
        return self.path

    def __str__(self) -> str:
        if self.entry_point is not None:
            return f"entry point {self.entry_point.name} = {self.entry_point.value}"
        return str(self.path)


class Problem(msgspec.Struct, frozen=True):
    """Something that was found and cannot be a plugin, and why.

    Attributes:
        name: The name that it would have had.
        path: The file or folder, if it is one.
        error: Why, with a remedy.
    """

    name: str
    path: Path | None
    error: VekoError

"""Where a plugin is found and what its source says about it: the data of discovery and loader.

Promise: plain data; nothing here runs a plugin's code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec

from veko import Plugin, VekoError

__all__ = ["Form", "Kept", "Outline", "Problem", "Source", "SourceImport"]

Form = str | Path | Plugin | type[Plugin] | Mapping[str, Any] | ModuleType
"""The forms in which a plugin is given: its name, its path, or the plugin itself."""


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """What a source says about its plugin, read without running it; enough to order plugins.

    Attributes:
        name: The plugin's name.
        version: Its version.
        dependencies: The plugins that it needs.
        priority: Its priority among plugins that may load.
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
        name: The plugin's name if there is an outline, else one derived from the file's name.
        kind: `file`, `package`, `entry-point`, or `script` for JavaScript and TypeScript.
        path: The file, or the folder of a package.
        main: The file in a folder of scripts that is run, relative to it.
        entry_point: The entry point, if it is one; its distribution is `entry_point.dist`.
        outline: What is known without running it; `None` if it has to be imported first.
        fields: The fields of `plugin.toml`, or of `package.json`.
        requires: Whether it may list distributions that it needs: in a `# /// script` block, in
            `requirements.txt` or in `pyproject.toml`.
    """

    name: str
    kind: Literal["file", "package", "entry-point", "script"]
    path: Path | None = None
    main: str | None = None
    entry_point: EntryPoint | None = None
    outline: Outline | None = None
    fields: dict[str, object] = {}
    requires: bool = False

    @property
    def file(self) -> Path | None:
        """The file that is imported."""
        if self.path is not None and self.kind == "package":
            return self.path / "__init__.py"
        if self.path is not None and self.main is not None:
            return self.path / self.main
        return self.path

    def __str__(self) -> str:
        if self.entry_point is not None:
            return f"entry point {self.entry_point.name} = {self.entry_point.value}"
        return str(self.path)


class SourceImport(msgspec.Struct):
    """One import of a source: the second argument of `source:import`.

    A handler that answers with a plugin fills in what the loader would know of a module.

    Attributes:
        wanted: The source files of an earlier import by path, to import that once more; `None` to
            read them from disk.
        held: The source files that the plugin runs, by path, for an import like this one later.
        content: The digests of its files; see `_source.content`.
        dispose: Frees what the import made; called once no generation runs on it, also if the
            plugin was never loaded.
    """

    wanted: Mapping[str, bytes] | None = None
    held: Mapping[str, bytes] = {}
    content: dict[str, bytes] = {}
    dispose: Callable[[], None] | None = None


class Kept(msgspec.Struct, frozen=True):
    """A plugin as it was before a restart.

    Attributes:
        origin: What it is loaded from.
        config: The configuration that it was given, without defaults.
        off: Whether somebody has switched it off.
    """

    origin: Form | Source
    config: dict[str, Any]
    off: bool


class Problem(msgspec.Struct, frozen=True):
    """Something that looks like a plugin and is none.

    Attributes:
        name: The name that the plugin would have had.
        path: The file or folder, if it is one.
        error: The reason, with a remedy.
    """

    name: str
    path: Path | None
    error: VekoError

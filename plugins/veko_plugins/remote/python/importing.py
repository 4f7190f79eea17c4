"""Importing the plugin in a worker: from its folder, or from sources that the host sent."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal

from veko import Plugin

from ..._source.source import Source
from ...loader import Loader

__all__ = ["import_plugin"]


async def import_plugin(facts: Mapping[str, Any]) -> Plugin:
    """Import the plugin that the host names.

    Args:
        facts: `name`, `path`, and if known `kind` (`file`, `package` or `entry-point`), `fields`
            (of `plugin.toml`), `sources` (its files by path, instead of those on disk) and
            `entry_point` (`{name, value, group}`).

    Raises:
        LoadError: It cannot be read, compiled or run.
        ManifestError: There is no valid plugin in it.
    """
    path = Path(facts["path"]) if facts.get("path") else None
    point = facts.get("entry_point")
    kind: Literal["file", "package", "entry-point"] = "file"
    if isinstance(point, Mapping):
        kind = "entry-point"
    elif path is not None and (facts.get("kind") == "package" or path.is_dir()):
        kind = "package"
    source = Source(
        name=str(facts["name"]),
        kind=kind,
        path=path,
        entry_point=EntryPoint(**point) if isinstance(point, Mapping) else None,
        fields=dict(facts.get("fields") or {}),
    )
    sources = facts.get("sources")
    return (await Loader().import_source(source, sources or None)).plugin

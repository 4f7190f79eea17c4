"""How the plugin files on disk differ from what runs: the one answer that every reload starts from.

A plugin has changed if its files hold something else than what its running generation was imported
from; times do not count.

Cost: a `stat` for each location, and for each plugin if there is a new location; the content is
read only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from veko import Kernel, VekoError

from .._source.content import Content, content_now, differing
from .._source.loading import Loading
from .._source.packages import main_file
from .._source.source import Source

__all__ = ["Survey", "changed_files", "survey"]


class Survey(msgspec.Struct, frozen=True):
    """What lies at some locations (files and folders of plugins), beside what runs.

    Attributes:
        present: The location of each loaded plugin whose file is there, by name.
        gone: The loaded plugins whose file is not there, in order of arrival.
        moved: Loaded plugins whose file is gone and that are found at a new location, by name.
        new: The locations of plugin files that no loaded plugin runs from.
    """

    present: dict[str, Path]
    gone: list[str]
    moved: dict[str, Source]
    new: set[Path]


def survey(kernel: Kernel, loading: Loading, locations: Collection[Path]) -> Survey:
    """Compare some locations with what runs.

    Args:
        kernel: The kernel.
        loading: The service `loading`.
        locations: The files and folders of plugins to look at.
    """
    runs = loading.locations()
    there = {location for location in locations if main_file(location).is_file()}
    # A file of another suffix, such as a README, is no plugin.
    new = {at for at in there - runs.keys() if kernel.use("discovery").file_of(at) is not None}
    return Survey(
        present={runs[location]: location for location in there if location in runs},
        gone=[name for at, name in runs.items() if at in locations and at not in there],
        moved=_moved(kernel, new, runs) if new else {},
        new=new,
    )


def _moved(kernel: Kernel, new: Collection[Path], runs: Mapping[Path, str]) -> dict[str, Source]:
    """Return the plugins whose file is not there any more, and is found at a new location."""
    missing = {name for location, name in runs.items() if not main_file(location).is_file()}
    found: dict[str, Source] = {}
    for location in new if missing else ():
        try:
            source: Source = kernel.use("discovery").find(location)
        except VekoError:  # loading it reports why
            continue
        if source.name in missing:
            found[source.name] = source
    return found


async def changed_files(
    loading: Loading, name: str, location: Path
) -> tuple[Content, set[Path]] | None:
    """Return what a loaded plugin's files hold, and those that differ from what runs.

    Returns:
        `None` if the plugin does not run from files.
    """
    before = loading.content(name)
    if before is None:
        return None
    now = await content_now(location, before, loading.max_source)
    return now, differing(before, now)

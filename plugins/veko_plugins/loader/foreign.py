"""The sources of a plugin that are in other languages than Python, before it is imported.

Importing never waits, and transpiling may; so all of them are transpiled first, also those that are
perhaps not imported. One that is wrong fails when it is imported.

Cost: nothing while there is no transpiler; else a look at the folder of each package.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from veko import VekoError

from .._source.bytecode import Compiled, SourceCache, read_source
from .._source.files import Watched
from .._source.transpilers import PYTHON, Transpilers

__all__ = ["Foreign", "transpiled"]


class Foreign(msgspec.Struct, frozen=True):
    """Sources in other languages.

    Attributes:
        transpiled: What each was compiled to, or why it was not, by path.
        by_stem: Their paths, by the path without its suffix.
    """

    transpiled: dict[str, Compiled | Exception] = {}
    by_stem: dict[str, str] = {}

    def sources(self) -> dict[str, bytes]:
        """Return what the files held that were compiled, by path."""
        return {
            path: one.source for path, one in self.transpiled.items() if isinstance(one, Compiled)
        }


async def transpiled(
    path: Path, cache: SourceCache, sources: Mapping[str, bytes] | None, allow_symlinks: bool
) -> Foreign | None:
    """Transpile and compile what is in another language, or take it from the cache.

    Args:
        path: The plugin's file or folder.
        cache: The cache.
        sources: The sources of an earlier generation, if they are not to be read from disk.
        allow_symlinks: Whether sources may lie outside the folder.

    Returns:
        `None` if all is Python.
    """
    transpilers = cache.transpilers
    if transpilers is None:
        return None
    found = Foreign()
    for file in _files(path, transpilers, sources, allow_symlinks):
        suffix = transpilers.suffix_of(file)
        if suffix is None:
            continue
        found.by_stem[file.removesuffix(suffix)] = file
        try:
            data = sources.get(file) if sources is not None else None
            if data is None:
                data, _ = read_source(file, cache.max_source)
            compiled = cache.find(file, data)
            if compiled is None:
                compiled = cache.keep(file, data, await transpilers.transpile(file, data))
            found.transpiled[file] = compiled
            transpilers.used(file)
        except (VekoError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            found.transpiled[file] = error
    return found if found.transpiled else None


def _files(
    path: Path,
    transpilers: Transpilers,
    sources: Mapping[str, bytes] | None,
    allow_symlinks: bool,
) -> Iterable[str]:
    if path.suffix == PYTHON or not transpilers.suffixes():
        return ()
    if sources is not None:
        return sorted(sources)
    if not path.is_dir():
        return (str(path),)
    home = os.path.realpath(path) + os.sep
    return [
        file
        for file in sorted(map(str, Watched((path.parent,), ()).look([path])))
        if not file.endswith(PYTHON) and (allow_symlinks or os.path.realpath(file).startswith(home))
    ]

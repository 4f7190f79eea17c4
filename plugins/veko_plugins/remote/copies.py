"""Copies of a script's files as they were, to run them once more after a rollback.

A copy lies in `.veko/remote`; what is not a source, and `node_modules`, are links to the originals.
It is removed when no generation runs on it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from .._lib.private_files import private_folder
from .._source.source import Source

__all__ = ["copy_of", "remove_copy"]

_PACKAGES = "node_modules"


def copy_of(source: Source, files: Mapping[str, bytes], directory: Path) -> Source:
    """Write files as they were into a folder of their own.

    Args:
        source: The plugin's source.
        files: The contents by path.
        directory: The application's directory.

    Returns:
        The source of the copy.
    """
    path = source.path
    assert path is not None
    home = directory / ".veko" / "remote"
    private_folder(home)
    folder = Path(tempfile.mkdtemp(prefix=f"{source.name[:40]}-", dir=home))
    whole = source.main is not None
    base = path if whole else path.parent
    copied = folder / path.name
    root = copied if whole else folder
    for name, data in files.items():
        target = root / Path(name).relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    if whole:
        _link_others(path, root, files)
    packages = next((one for one in (base, *base.parents) if (one / _PACKAGES).is_dir()), None)
    if packages is not None and not (root / _PACKAGES).exists():
        (root / _PACKAGES).symlink_to(packages / _PACKAGES)
    return msgspec.structs.replace(source, path=copied)


def _link_others(path: Path, root: Path, files: Mapping[str, bytes]) -> None:
    for entry in os.scandir(path):
        target = root / entry.name
        if not target.exists() and entry.path not in files:
            target.symlink_to(entry.path)


def remove_copy(copy: Source) -> None:
    """Remove a copy."""
    if copy.path is not None:
        with contextlib.suppress(OSError):
            shutil.rmtree(copy.path.parent)

"""The host's own packages for a worker with another environment: a folder of links.

Such a worker must import Veko, and must not see what else the host has installed. So the packages
that a worker needs are linked into a folder of their own, which comes last in the worker's path:
what its environment has itself wins. `msgspec` is compiled for one version of Python, and is
installed into the environment.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["COMPILED", "linked_packages", "packages"]

COMPILED: Final = ("msgspec",)
"""What an environment must have itself, in the host's version."""
_PURE: Final = (
    "veko", "veko_plugins", "veko_adapters", "anyio", "idna", "sniffio", "typing_extensions",
    "exceptiongroup", "packaging", "nodesemver", "blinker", "multipart",
)  # fmt: skip


def packages() -> dict[str, Path]:
    """Return the packages and modules that a worker needs of the host, by file name.

    What the host has not installed is left out.
    """
    found: dict[str, Path] = {}
    for name in _PURE:
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        # `veko_adapters` is a namespace package, which has no file.
        folders = list(spec.submodule_search_locations or ())
        path = Path(folders[0] if folders else str(spec.origin))
        found[path.name] = path
    return found


def linked_packages(cache: Path) -> Path:
    """Return a folder with links to the packages, which is made at first use.

    Args:
        cache: Where such folders are kept.
    """
    wanted = packages()
    key = hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()[:16]
    folder = cache / f"packages-{key}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=cache))
    try:
        for name, path in wanted.items():
            (made / name).symlink_to(path)
        made.chmod(0o755)
        made.rename(folder)
    except OSError:
        shutil.rmtree(made, ignore_errors=True)
        if not folder.is_dir():  # else another process was quicker
            raise
    return folder

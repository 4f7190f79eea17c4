"""Private working folders of workers: made before they start, removed after they ended."""

import contextlib
import os
import tempfile
from pathlib import Path

PREFIX = "veko-worker-"


def make() -> Path:
    """Make a folder that only this user can enter."""
    return Path(tempfile.mkdtemp(prefix=PREFIX))


def remove(folder: Path) -> None:
    """Remove a folder whose worker has ended, however deep it is, in the calling process's stead.

    It changes the working folder of the process, so a process of its own calls it: paths may be
    longer than the system takes. Nothing follows a symbolic link.
    """
    above: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        os.chdir(folder)
        while True:
            below = _empty_but_one()
            if below is not None:
                Path(below).chmod(0o700)
                os.chdir(below)
                above.append(below)
                continue
            os.chdir("..")
            if not above:
                break
            Path(above.pop()).rmdir()
        folder.rmdir()


def _empty_but_one() -> str | None:
    """Unlink the files here; return a folder that is left, if any."""
    found = None
    with os.scandir(".") as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found = entry.name
            else:
                Path(entry.name).unlink()
    return found

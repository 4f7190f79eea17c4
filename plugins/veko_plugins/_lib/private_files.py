"""Folders and files for this user alone: what Veko writes may hold what plugins keep private.

What is created gets 0700 and 0600, whatever the umask says. What exists keeps its mode, so an
operator can open a folder or a file to others.

Promise: nothing is created with a wider mode and narrowed later; held by
`test_what_veko_writes_is_its_users_alone`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["PRIVATE", "create_private", "open_private", "private_folder"]

PRIVATE: Final = 0o600
_FOLDER: Final = 0o700
_CREATE: Final = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
)


def private_folder(folder: Path) -> None:
    """Create a folder and the folders around it that are missing, all for this user alone.

    Raises:
        OSError: It cannot be created, or a file is in its way.
    """
    try:
        folder.mkdir(_FOLDER)
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        private_folder(folder.parent)
        folder.mkdir(_FOLDER, exist_ok=True)
    except OSError:
        if not folder.is_dir():
            raise


def create_private(path: Path) -> int:
    """Create a file that does not exist; returns its descriptor, for writing.

    Raises:
        OSError: It cannot be created, or exists.
    """
    return os.open(path, _CREATE, PRIVATE)


def open_private(path: str, flags: int) -> int:
    """Open a file as `open(..., opener=open_private)` does; a new one is for this user alone."""
    return os.open(path, flags, PRIVATE)

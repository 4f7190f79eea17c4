"""The token of the management API: made once, kept in a file that its owner alone may read."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from veko import OptionError

from .._lib.private_files import create_private, private_folder
from .settings import SHORTEST

__all__ = ["TOKEN_FILE", "admin_token", "made_token"]

TOKEN_FILE: Final = Path(".veko") / "admin-token"
_BYTES: Final = 32
_OTHERS: Final = 0o077
_MOST: Final = 4096


def admin_token(directory: Path) -> str | None:
    """Return the token that was made for an application; `None` if there is none.

    Args:
        directory: The application's directory.

    Raises:
        OptionError: Others can read the file, or it has no token in it.
    """
    path = directory / TOKEN_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        if os.name == "posix":
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise _unusable(path, "is not a file of this user")
            if found.st_mode & _OTHERS:
                raise _unusable(path, "can be read by other users")
        text = file.read(_MOST).decode("ascii", "replace").strip()
    if len(text) < SHORTEST:
        raise _unusable(path, "has no token in it")
    return text


def made_token(directory: Path) -> str:
    """Return the token of an application, which is made if there is none.

    Several processes may ask at once: the first that links its file wins.

    Raises:
        OptionError: As `admin_token`; or it cannot be written.
    """
    path = directory / TOKEN_FILE
    known = admin_token(directory)
    if known is not None:
        return known
    try:
        private_folder(path.parent)
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(create_private(draft), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(_BYTES) + "\n")
        try:
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    except OSError as error:
        raise OptionError(
            f"the token of the management API cannot be written: {error}",
            plugin="admin",
            remedy="Make .veko writable, or set `token` in [plugins.admin].",
        ) from error
    known = admin_token(directory)
    if known is None:
        raise _unusable(path, "is gone again")
    return known


def _unusable(path: Path, why: str) -> OptionError:
    return OptionError(
        f"the token of the management API {why}",
        plugin="admin",
        path=path,
        remedy="Remove the file: a new token is made at the next start.",
    )

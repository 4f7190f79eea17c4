"""The application that a command works on.

`DIR` contains `plugins/` (and perhaps `veko.toml`), or is itself a folder of plugins. The second
form needs DIR to be given: the working directory is never imported file by file by accident.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from veko import OptionError
from veko_plugins import Options
from veko_plugins._lib.regular_files import read_toml
from veko_plugins.logging import Logging

__all__ = ["adapter_of", "has_plugins", "options_of"]


def options_of(directory: Path | None, logs: Logging, *, serves: bool = False) -> dict[str, Any]:
    """Return the manager's options for the application in a directory.

    Args:
        directory: The directory, or `None` for the working directory.
        logs: The log handlers of the command, used as the core plugin `logging`.
        serves: Whether the command serves; see `adapter_of`.

    Raises:
        OptionError: There is no such directory, or no application in it.
    """
    root = (directory or Path()).resolve()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise OptionError(f"{directory} {what}", remedy="Name the folder of an application.")
    options: dict[str, Any] = {"root": root, "core": {"logging": logs}}
    if not serves:
        options |= adapter_of(root)
    if has_plugins(root):
        return options
    if directory is None:
        raise OptionError(
            "there is no application in this folder (no plugins/)",
            remedy="Change to an application's folder, or name it (DIR).",
        )
    return options | {"plugins_dir": root}


def has_plugins(root: Path) -> bool:
    """Return whether a directory is that of an application: it has plugins, or names them."""
    return (root / "plugins").is_dir() or _names_plugins(root) or "VEKO_PLUGINS_DIR" in os.environ


def adapter_of(root: Path) -> dict[str, str]:
    """Return the option `adapter` for a command that loads an application and does not serve it.

    Where Litestar, the default, is not installed (as with `veko[cli]` alone) and no adapter is
    chosen, that is the adapter without a framework. A faulty option is the manager's to report.

    Args:
        root: The application's directory.
    """
    if importlib.util.find_spec("litestar") is not None:
        return {}
    try:
        chosen = "adapter" in Options.read(root).origins
    except OptionError:
        chosen = True
    return {} if chosen else {"adapter": "asgi"}


def _names_plugins(root: Path) -> bool:
    """Return whether a settings file names the folder of plugins."""
    for name, path in (("veko.toml", ()), ("pyproject.toml", ("tool", "veko"))):
        try:
            table: object = read_toml(root / name)
        except (OSError, ValueError):
            continue  # the manager reports what is wrong with it
        for key in path:
            table = table.get(key) if isinstance(table, Mapping) else None
        if isinstance(table, Mapping) and "plugins_dir" in table:
            return True
    return False

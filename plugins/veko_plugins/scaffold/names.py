"""Names of plugins to generate: valid as a plugin's name, a folder and a Python module.

A plugin `my-shop` is generated into the folder `my_shop`, which type checkers and linters accept as
a module. Tests run with the plugin folder on Python's path, so a folder that is named like another
module would hide that from them: such names are reserved.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from typing import Final

import msgspec

from .._lib.plugin_names import NAME, nearest_name
from .errors import ScaffoldError

__all__ = ["CORE", "LONGEST", "Name", "check_name", "why_not"]

LONGEST: Final = 40
"""Characters of a name; longer ones do not fit into the lines of the templates."""
CORE: Final = frozenset((
    "activation", "auth", "backup", "cache", "commands", "config", "console", "database",
    "dependencies", "discovery", "health", "ledger", "loader", "loading", "logging", "metrics",
    "openapi", "permissions", "probation", "profiling", "recording", "reload", "remote", "routes",
    "signals", "state", "storage", "telemetry", "tracing", "transpile", "validation", "watch",
    "watchdog", "workers",
))  # fmt: skip
"""The names of core plugins; tests/plugins/scaffold/test_names.py compares.

Not `admin`, a name that applications like: it is taken only where `enable_api` is on.
"""
_FOLDERS: Final = frozenset(("conftest", "node_modules", "plugin", "plugins", "test", "tests"))
_DEVICES: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")


class Name(msgspec.Struct, frozen=True):
    """A name that was checked.

    Attributes:
        name: The plugin's name.
        module: The name of its folder, which is that of a Python module.
    """

    name: str
    module: str


def check_name(name: object) -> Name:
    """Check the name of a plugin to generate.

    Raises:
        ScaffoldError: It is not valid, too long or reserved; the message proposes the nearest name
            that is valid.
    """
    why = why_not(name)
    if why:
        shown = name if not isinstance(name, str) or len(name) <= 60 else f"{name[:58]}…"
        near = _proposal(name) if isinstance(name, str) else ""
        remedy = f"Did you mean {near!r}?" if near else "Use a name such as 'my-plugin'."
        raise ScaffoldError(f"{shown!r} cannot be the name of a plugin: {why}", remedy=remedy)
    return Name(str(name), _module(str(name)))


def why_not(name: object) -> str:
    """Return why a name cannot be that of a new plugin; empty if it can be."""
    if not isinstance(name, str):
        return f"it is no text, but {type(name).__name__}"
    if not name:
        return "it is empty"
    if len(name) > LONGEST:
        return f"it has {len(name)} characters, and {LONGEST} are the most"
    if not NAME.fullmatch(name) or not name[-1].isalnum():
        return "it may have lower-case letters, digits and . _ - between them"
    module = _module(name)
    if not module.isidentifier():
        return f"{module!r} is no Python identifier"
    return _why_reserved(name, module)


def _why_reserved(name: str, module: str) -> str:
    if keyword.iskeyword(module):
        return "it is a keyword of Python"
    if name in CORE or module in CORE:
        return "a core plugin has that name"
    if module in sys.stdlib_module_names:
        return "a module of Python's standard library has that name"
    if module in _FOLDERS or module == "veko" or module.startswith("veko_"):
        return "it is reserved"
    if _DEVICES.fullmatch(name):
        return "it is the name of a device on Windows"
    if _is_installed(module):
        return "an installed module has that name"
    return ""


def _is_installed(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return True
    # Any folder on the path is a namespace package without an origin.
    return spec is not None and spec.origin is not None


def _module(name: str) -> str:
    return re.sub(r"[.-]", "_", name)


def _proposal(text: str) -> str:
    near = nearest_name(text, LONGEST)
    if near and not near[0].isalpha():
        near = nearest_name(f"plugin-{near}", LONGEST)
    tried = (near, f"{near[: LONGEST - 7]}-plugin", f"my-{near[: LONGEST - 3]}") if near else ()
    return next((one for one in tried if not why_not(one)), "")

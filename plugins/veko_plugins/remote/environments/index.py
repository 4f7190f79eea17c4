"""Where uv looks for distributions: where pip of this machine does, unless `UV_…` variables differ.

So what pip can install here uv can too, with nothing set up twice.

Cost: reads pip's few configuration files.
Promise: what `UV_…` variables say counts; no index is added that pip does not have.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["index_variables"]


def index_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that let uv look where pip looks.

    Args:
        environ: The variables of this process.
    """
    pip = _of_pip(environ)
    found: dict[str, str] = {}
    if "index-url" in pip:
        found["UV_DEFAULT_INDEX"] = pip["index-url"].strip()
    if pip.get("extra-index-url", "").split():
        found["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip does: no index comes first
    if pip.get("find-links", "").split():
        found["UV_FIND_LINKS"] = ",".join(pip["find-links"].split())
    if "cert" in pip:
        found["SSL_CERT_FILE"] = pip["cert"].strip()
    given = {"UV_INDEX_URL": "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL": "UV_INDEX"}
    known = {*environ, *(new for old, new in given.items() if old in environ)}
    return {name: value for name, value in found.items() if name not in known}


def _of_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings by option; the last file, and then the variables, win."""
    found: dict[str, str] = {}
    for file in _files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeError, OSError):
            continue  # pip itself reports it
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= dict(parser.items(section))
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            found[name[4:].lower().replace("_", "-")] = value
    return found


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    for folder in reversed((environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)):
        yield Path(folder) / "pip" / "pip.conf"
    yield Path("/etc/pip.conf")
    if home is not None:
        yield home / ".pip" / "pip.conf"
    own = environ.get("XDG_CONFIG_HOME")
    if own or home is not None:
        yield (Path(own) if own else Path(str(home), ".config")) / "pip" / "pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if environ.get("PIP_CONFIG_FILE"):
        yield Path(environ["PIP_CONFIG_FILE"])

"""Plugins in JavaScript and TypeScript, as far as telling them apart and reading their fields goes.

A script is a file with one of `SUFFIXES`, or a folder whose `package.json` or `index` file leads to
one. Fields are written as in `package.json`, in camel case or as `veko.Manifest` has them.

Promise: pure functions and data; nothing runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from veko import Manifest

__all__ = ["PACKAGE", "SPELLINGS", "SUFFIXES", "is_script", "manifest_fields"]

SUFFIXES: Final = (".ts", ".mts", ".cts", ".js", ".mjs", ".cjs")
"""The suffixes of scripts; of several `index` files in a folder, the first one counts."""
PACKAGE: Final = "package.json"
_DECLARATIONS: Final = (".d.ts", ".d.mts", ".d.cts")
_ENGINES: Final = frozenset(("node", "python", "veko"))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


SPELLINGS: Final = {
    spelling: field.name
    for field in msgspec.structs.fields(Manifest)
    for spelling in (_camel(field.name), field.name)
}

"""The fields of a manifest by each way to write them."""


def is_script(path: Path | str) -> bool:
    """Return whether a file is a script by its name; one that only declares types is none."""
    name = path if isinstance(path, str) else path.name
    return name.endswith(SUFFIXES) and not name.endswith(_DECLARATIONS)


def manifest_fields(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a manifest as `veko.Manifest` has them; others are left out.

    People and links may be objects, as in `package.json`. Requirements may be a mapping from names
    to ranges. Engines that say nothing about Veko (`npm`) are left out.

    Args:
        written: The fields in camel case, or as `veko.Manifest` has them.
    """
    found: dict[str, Any] = {}
    for spelling, value in written.items():
        name = SPELLINGS.get(spelling)
        if name is None or value is None:
            continue
        found[name] = _READ[name](value) if name in _READ else value
    return found


def _text(key: str) -> Any:
    return lambda value: value.get(key, "") if isinstance(value, Mapping) else value


def _person(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    name, email = value.get("name", ""), value.get("email")
    return f"{name} <{email}>" if email else name


def _requirements(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return [name if range_ in ("", "*") else f"{name}@{range_}" for name, range_ in value.items()]


def _engines(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return {engine: range_ for engine, range_ in value.items() if engine in _ENGINES}


_READ: Final = {
    "author": _person,
    "license": _text("type"),
    "homepage": _text("url"),
    "repository": _text("url"),
    "dependencies": _requirements,
    "peer_dependencies": _requirements,
    "engines": _engines,
}

"""Turns the error of an import into a `LoadError` that says where it was, and what to do.

The line is that of the innermost frame in the plugin's own files, so an error deep in a library
points at the plugin's line that led there.

Promise: no command proposes to install a distribution that the plugin does not declare. A name in
an import may be a typing error, and anybody may have registered it.
"""

from __future__ import annotations

import ast
import contextlib
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from veko import LoadError

from .._lib.versions import did_you_mean

__all__ = ["declared_peers", "explain"]


def explain(
    error: BaseException, name: str, path: Path, root: str, declared: Sequence[str] = ()
) -> LoadError:
    """Return the `LoadError` for an error that importing a plugin raised.

    Args:
        error: The error.
        name: The plugin.
        path: Its file or folder.
        root: The name of its module; what the plugin imports of itself begins with it.
        declared: The plugin's `peer_dependencies`.
    """
    file, line = _location(error, path)
    if isinstance(error, LoadError):  # unreadable, too large, a link: only the plugin is missing
        return LoadError(
            error.message,
            step="import",
            plugin=name,
            path=error.path or path,
            line=error.line,
            remedy=error.remedy,
        )
    if isinstance(error, SyntaxError):
        return _bad_syntax(error, name, path, file, line)
    if isinstance(error, ImportError):
        message, remedy = _bad_import(error, root, path, declared)
    elif isinstance(error, SystemExit):
        message = f"importing it called sys.exit({'' if error.code is None else repr(error.code)})"
        remedy = "Raise an error instead, and keep scripts under `if __name__ == '__main__'`."
    elif isinstance(error, ValueError) and "null bytes" in str(error) and line is None:
        message, remedy = "its source holds null bytes", "Save it as UTF-8 text."
    else:
        message = f"importing it raised {type(error).__name__}: {error}".rstrip(": ")
        remedy = "Fix the line; nothing of the plugin was registered."
    return LoadError(message, step="import", plugin=name, path=file, line=line, remedy=remedy)


def _bad_syntax(
    error: SyntaxError, name: str, path: Path, file: Path, line: int | None
) -> LoadError:
    source = Path(error.filename) if error.filename else path
    if not _inside(source, path):  # a library's file: point at the line that imports it
        message = f"importing {source} found a syntax error in line {error.lineno}: {error.msg}"
        remedy = "Fix or replace the library."
        return LoadError(message, step="import", plugin=name, path=file, line=line, remedy=remedy)
    undecodable = _undecodable(source)
    if undecodable is not None:
        return LoadError(
            f"its source is not UTF-8: byte {undecodable[1]:#04x}",
            step="import",
            plugin=name,
            path=source,
            line=undecodable[0],
            remedy="Save the file as UTF-8.",
        )
    return LoadError(
        f"syntax error: {error.msg}",
        step="import",
        plugin=name,
        path=source,
        line=error.lineno or None,
        remedy="Fix the line.",
    )


def _bad_import(
    error: ImportError, root: str, path: Path, declared: Sequence[str]
) -> tuple[str, str]:
    wanted = error.name or ""
    text = str(error).replace(root, path.stem)
    if wanted.startswith(f"{root}."):
        return f"import failed: {text}", f"Add the module to {path}, or fix the import."
    if path.is_file() and wanted.startswith(root.partition(".")[0]):
        return (
            "import failed: a single file has no package to import from",
            f"Make it a folder: move it to {path.with_suffix('') / '__init__.py'}.",
        )
    if isinstance(error, ModuleNotFoundError) and wanted:
        return f"import failed: {text}", _remedy(wanted.partition(".")[0], path, declared)
    return f"import failed: {text}", "Fix the import, or install the version that has the name."


def _remedy(top: str, path: Path, declared: Sequence[str]) -> str:
    """Return what to do about a module that is not there."""
    if top in sys.stdlib_module_names or top in sys.modules:
        return "Fix the name in the import."
    if path.is_dir() and _holds(path, top):
        return f"{top} is a module of this plugin: write `from . import {top}`."
    if _holds(path.parent, top):
        move = f"move it into {path.name}/"
        if path.is_file():
            move = f"make this plugin a folder ({path.stem}/__init__.py), move {top} into it"
        return (
            f"{top} lies beside the plugin, and plugins are not on the import path. If it is a "
            f"part of this plugin, {move} and write `from . import {top}`. If it is a plugin of "
            f"its own, name it in `dependencies` and use context.get_plugin({top!r}).exports."
        )
    wanted = [found for text in declared if (found := _installable(text)) is not None]
    exact = [text for text in wanted if _is_named(text, top)]
    if exact or wanted:
        command = shlex.join(["pip", "install", *(exact or wanted)])
        return f"Install what the plugin declares in `peer_dependencies`: {command}"
    near = did_you_mean(top, sys.stdlib_module_names, count=1)
    return (
        f"{near} Fix the import, or install the distribution that the module belongs to (its "
        "documentation names it) and add that to `peer_dependencies`."
    ).lstrip()


def _holds(folder: Path, module: str) -> bool:
    return (folder / f"{module}.py").is_file() or (folder / module / "__init__.py").is_file()


def _installable(text: str) -> str | None:
    """Return a declared requirement without anything but name, extras and versions."""
    try:
        found = Requirement(text)
    except (InvalidRequirement, TypeError):
        return None
    if found.url is not None or (found.marker is not None and not found.marker.evaluate()):
        return None
    extras = f"[{','.join(sorted(found.extras))}]" if found.extras else ""
    return f"{found.name}{extras}{found.specifier}"


def _is_named(requirement: str, module: str) -> bool:
    return canonicalize_name(Requirement(requirement).name) == canonicalize_name(module)


def declared_peers(source: bytes | None, fields: Mapping[str, object]) -> list[str]:
    """Return the `peer_dependencies` that a source spells out, and those of `plugin.toml`.

    Args:
        source: The text of the plugin's module, which cannot be imported.
        fields: The fields of `plugin.toml`.
    """
    found: list[object] = []
    more = fields.get("peer_dependencies")
    found += more if isinstance(more, list) else []
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for node in ast.walk(ast.parse(source or b"")):
            match node:
                case ast.Assign(targets=[ast.Name(id="peer_dependencies")], value=value):
                    found += ast.literal_eval(value)
    return [text for text in found if isinstance(text, str)]


def _undecodable(source: Path) -> tuple[int, int] | None:
    data = b""
    try:
        data = source.read_bytes()
        data.decode()
    except UnicodeDecodeError as error:
        if b"coding" in b"".join(data.splitlines()[:2]):
            return None  # it declares another encoding
        return data.count(b"\n", 0, error.start) + 1, data[error.start]
    except OSError:
        return None
    return None


def _location(error: BaseException, path: Path) -> tuple[Path, int | None]:
    """Return the file and line of the innermost frame in a plugin's own files."""
    location: tuple[Path, int | None] = (path, None)
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        if _inside(file, path):
            location = (file, line)
    return location


def _inside(file: Path, path: Path) -> bool:
    return file == path or path in file.parents

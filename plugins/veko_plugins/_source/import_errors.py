"""Turns the error of an import into a `LoadError` that says where it was, and what to do.

The line is that of the innermost frame in the plugin's own files, so an error deep in a library
points at the plugin's line that led there.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from veko import LoadError

__all__ = ["explain"]


def explain(error: BaseException, name: str, path: Path, root: str) -> LoadError:
    """Return the `LoadError` for an error that importing a plugin raised.

    Args:
        error: The error.
        name: The plugin.
        path: Its file or folder.
        root: The name of its module; what the plugin imports of itself begins with it.
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
        message, remedy = _bad_import(error, root, path)
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


def _bad_import(error: ImportError, root: str, path: Path) -> tuple[str, str]:
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
        top = wanted.partition(".")[0]
        if top in sys.stdlib_module_names or top in sys.modules:
            return f"import failed: {text}", "Fix the name in the import."
        return (
            f"import failed: {text}",
            f"Install the distribution that has it (often `pip install {top}`) or fix the import.",
        )
    return f"import failed: {text}", "Fix the import, or install the version that has the name."


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

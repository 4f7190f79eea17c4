"""Renders the files of a template with Jinja2.

A file `NAME.jinja` becomes `NAME`; `MODULE` in a path becomes the name of the module. A value that
is missing is an error, and texts are written as literals of the language they stand in, so that no
answer can break out of its quotes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any, Final

from .errors import ScaffoldError

__all__ = ["render"]

_FOLDER: Final = Path(__file__).parent / "templates"
_SUFFIX: Final = ".jinja"


def render(folder: str, values: dict[str, Any]) -> dict[PurePosixPath, str]:
    """Return the files of a template, by their paths in what is generated.

    Args:
        folder: The template's folder.
        values: The values; `module` is used in paths too.

    Raises:
        ScaffoldError: Jinja2 is not installed.
    """
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ScaffoldError(
            "generating needs Jinja2, which is not installed",
            remedy="pip install 'veko[scaffold]'",
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER, encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"json": _json, "toml": _toml, "key": _key, "prose": _prose}
    files: dict[PurePosixPath, str] = {}
    for path in sorted((_FOLDER / folder).rglob(f"*{_SUFFIX}")):
        inside = path.relative_to(_FOLDER / folder).as_posix()
        template = environment.get_template(f"{folder}/{inside}")
        target = inside.removesuffix(_SUFFIX).replace("MODULE", values["module"])
        files[PurePosixPath(target)] = template.render(values)
    return files


def _json(value: object) -> str:
    """Return a literal of JSON, JavaScript and TypeScript."""
    return json.dumps(value, ensure_ascii=False)


def _toml(text: str) -> str:
    """Return a basic string of TOML: as in JSON, but that it has no raw DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(text: str) -> str:
    """Return a key of TOML."""
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _toml(text)


def _prose(text: str) -> str:
    """Return a line of Markdown that shows a text as it is."""
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", text)

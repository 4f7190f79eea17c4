"""Generates a plugin, or an application: checks everything, renders, then writes at once."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any, Final

import anyio.to_thread
import msgspec

from .._lib.regular_files import read_toml
from .answers import Answers, check_answers
from .catalogue import Template, find_template
from .errors import ScaffoldError
from .names import Name, check_name
from .rendering import render
from .writing import write_files

__all__ = [
    "Application",
    "Plan",
    "create_application",
    "generate_plugin",
    "generate_plugin_now",
    "plan_plugin",
]

_APPLICATION: Final = "_application"
_KEPT: Final = (".gitignore", "README.md")
"""Files of an application that stay as they are if they exist."""
_HTTP: Final = {"litestar": "litestar", "starlette": "starlette"}


class Plan(msgspec.Struct, frozen=True):
    """A plugin that can be generated: everything about it was checked.

    Attributes:
        folder: The plugin folder.
        path: The folder of the plugin.
        files: The contents of its files, by their paths in the plugin folder.
        template: The template.
    """

    folder: Path
    path: Path
    files: dict[PurePosixPath, str]
    template: Template


class Application(msgspec.Struct, frozen=True):
    """An application that was created.

    Attributes:
        path: Its folder.
        created: What was created in it, sorted.
        kept: Files that existed and stayed as they were.
    """

    path: Path
    created: tuple[PurePosixPath, ...]
    kept: tuple[str, ...] = ()


async def generate_plugin(
    name: str, template: str = "basic", *, folder: str | Path = "plugins", **answers: str | None
) -> Path:
    """Generate a plugin from a template, with a test that passes.

    All of it is written, or nothing; nothing is ever overwritten.

    Args:
        name: The plugin's name. Its folder is named like it, with `_` for `.` and `-`.
        template: `basic`, `api`, `middleware`, `websocket`, `database`, `auth` or `typescript`.
        folder: The plugin folder; it is created if it is not there.
        answers: `description`, `author`, `version` and `license`.

    Returns:
        The plugin's folder.

    Raises:
        ScaffoldError: The name, the template or an answer is not valid, the plugin exists, or the
            folder cannot be written. Nothing was written.
    """
    return await anyio.to_thread.run_sync(
        lambda: generate_plugin_now(name, template, folder, answers)
    )


def generate_plugin_now(
    name: str, template: str, folder: str | Path, answers: dict[str, Any]
) -> Path:
    """Generate a plugin as `generate_plugin` does, without an event loop."""
    plan = plan_plugin(name, template, folder, answers)
    write_files(plan.folder, plan.files)
    return plan.path


def plan_plugin(name: str, template: str, folder: str | Path, answers: dict[str, Any]) -> Plan:
    """Check everything about a plugin, and render it.

    Raises:
        ScaffoldError: See `generate_plugin`.
    """
    chosen = find_template(template)
    checked = check_name(name)
    given = check_answers(answers)
    if not isinstance(folder, str | Path):
        raise ScaffoldError(
            f"the folder must be a path, not {folder!r}", remedy="Pass the plugin folder."
        )
    home = Path(os.path.abspath(folder))  # noqa: PTH100 - without ".."
    _check_free(home, checked)
    files = _plugin_files(checked, chosen, given)
    below = {PurePosixPath(checked.module, path): text for path, text in files.items()}
    return Plan(home, home / checked.module, below, chosen)


def create_application(folder: str | Path) -> Application:
    """Create an application: settings, a plugin, tests; what `veko serve` runs at once.

    Args:
        folder: Its folder, which may exist. `README.md` and `.gitignore` stay as they are if they
            exist.

    Raises:
        ScaffoldError: There is an application already, or something in the way. Nothing was
            written.
    """
    root = Path(os.path.abspath(folder))  # noqa: PTH100 - without ".."
    if _has_settings(root):
        raise ScaffoldError(
            f"{root} is an application already: its pyproject.toml has a table [tool.veko]",
            path=root,
            remedy="Add plugins with `veko new`.",
        )
    for one in ("veko.toml", "plugins", "tests"):
        if (root / one).exists() or (root / one).is_symlink():
            raise ScaffoldError(
                f"{root / one} exists",
                path=root / one,
                remedy="Nothing is overwritten: choose another folder, or add plugins with "
                "`veko new`.",
            )
    name = Name("hello", "hello")
    values = {
        "title": re.sub(r"[^\w .-]", "-", root.name).strip() or "application",
        "module": name.module,
        "adapter": _adapter(),
    }
    files = render(_APPLICATION, values)
    for path, text in _plugin_files(name, find_template("basic"), Answers()).items():
        files[PurePosixPath("plugins", name.module, path)] = text
    kept = tuple(one for one in _KEPT if (root / one).exists() or (root / one).is_symlink())
    for one in kept:
        del files[PurePosixPath(one)]
    if root.exists() or root.is_symlink():
        write_files(root, files)
    else:  # the folder appears at once, complete
        write_files(root.parent, {PurePosixPath(root.name, p): text for p, text in files.items()})
    return Application(root, tuple(sorted(files)), kept)


def _plugin_files(name: Name, template: Template, answers: Answers) -> dict[PurePosixPath, str]:
    return render(
        template.name,
        {
            "name": name.name,
            "module": name.module,
            "description": answers.description or template.description,
            "author": answers.author,
            "version": answers.version,
            "license": answers.license,
            "extras": template.extras,
            "options": template.options,
        },
    )


def _check_free(folder: Path, name: Name) -> None:
    """Refuse a name that a file or folder beside it has in another form: `hello.py`, `hel-lo`."""
    try:
        entries = sorted(one.name for one in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ScaffoldError(
            f"{folder} cannot be read: {error.strerror}",
            path=folder,
            remedy="Allow this user to read it, or choose another folder.",
        ) from error
    for entry in entries:
        stem = entry if (folder / entry).is_dir() else entry.partition(".")[0]
        if re.sub(r"[.-]", "_", stem).casefold() == name.module:
            raise ScaffoldError(
                f"{folder / entry} exists",
                path=folder / entry,
                remedy="Nothing is overwritten: choose another name, or move it.",
            )


def _has_settings(root: Path) -> bool:
    try:
        table: Any = read_toml(root / "pyproject.toml")
    except (OSError, ValueError):
        return False
    tool = table.get("tool")
    return isinstance(tool, dict) and "veko" in tool


def _adapter() -> str:
    """Return the adapter that has to be named in the settings; empty where the default works."""
    installed = [one for one in _HTTP if importlib.util.find_spec(one) is not None]
    if "litestar" in installed:
        return ""
    return installed[0] if installed else "asgi"

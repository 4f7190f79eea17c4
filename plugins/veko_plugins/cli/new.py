"""`veko new` and `veko init`: generate a plugin, or an application.

What is not given is asked at a terminal; elsewhere it is the default, or an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich_click as click

from veko import OptionError, VekoError
from veko_plugins import Options

from .application import has_plugins
from .printing import print_json
from .runner import print_error

__all__ = ["init_application", "new_plugin"]


def new_plugin(
    name: str | None,
    template: str | None,
    directory: Path | None,
    answers: dict[str, str | None],
    *,
    ask: bool,
    as_json: bool,
    debug: bool,
) -> int:
    """Generate a plugin; return the exit code.

    Args:
        name: Its name; asked for if it is `None`.
        template: The template; asked for, or else `basic`, if it is `None`.
        directory: The application's directory, as the user gave it.
        answers: What was given of the description, the author, the version and the license.
        ask: Whether to ask for what is missing, if there is a terminal.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """
    from veko_plugins.scaffold import TEMPLATES, check_name, generate_plugin_now, plan_plugin

    ask = ask and sys.stdin.isatty() and sys.stdout.isatty()
    if name is None and not ask:
        raise click.UsageError("Missing argument 'NAME'.")
    try:
        root, folder = _folder(directory)
        if name is not None:
            check_name(name)
        elif ask:
            name = _asked("Name", check=check_name)
        if template is None:
            template = "basic"
            if ask:
                for one in TEMPLATES.values():
                    click.echo(f"  {one.name:<12}{one.shows}")
                template = _asked("Template", default="basic", choices=list(TEMPLATES))
        if ask and answers["description"] is None:
            answers["description"] = _asked("Description", default=TEMPLATES[template].description)
        if ask and answers["author"] is None:
            answers["author"] = _asked("Author", default="")
        plan = plan_plugin(str(name), template, folder, answers)
        generate_plugin_now(str(name), template, folder, answers)
    except VekoError as error:
        print_error(error, debug=debug)
        return 1
    shown = _shown(plan.path)
    if as_json:
        print_json(
            {
                "path": shown,
                "files": sorted(str(path.relative_to(plan.path.name)) for path in plan.files),
            }
        )
        return 0
    click.echo(f"created {shown}")
    for path in sorted(plan.files):
        click.echo(f"  {path.relative_to(plan.path.name)}")
    for line in plan.template.options:
        if not getattr(Options.read(root), line.partition(" ")[0]):
            click.echo(f"It needs an option in {_shown(root / 'veko.toml')}: {line}")
    click.echo(f"Test it:  pytest {shown}")
    click.echo("Serve it: " + " ".join(["veko serve", *([str(directory)] if directory else [])]))
    return 0


def init_application(directory: Path, *, as_json: bool, debug: bool) -> int:
    """Create an application; return the exit code.

    Args:
        directory: Its directory.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """
    from veko_plugins.scaffold import create_application

    try:
        made = create_application(directory)
    except VekoError as error:
        print_error(error, debug=debug)
        return 1
    shown = _shown(made.path)
    if as_json:
        print_json({"path": shown, "files": [*map(str, made.created)], "kept": [*made.kept]})
        return 0
    click.echo(f"created {'an application in this folder' if shown == '.' else shown}")
    for path in made.created:
        click.echo(f"  {path}")
    for name in made.kept:
        click.echo(f"  {name} stays as it was")
    click.echo(f"Serve it: veko serve{'' if shown == '.' else f' {shown}'}")
    click.echo("Then:     curl http://127.0.0.1:8000/hello/ann")
    return 0


def _folder(directory: Path | None) -> tuple[Path, Path]:
    """Return the application's directory, and the plugin folder to write into.

    Without `DIR`, a folder that has no plugins yet becomes an application.
    """
    root = (directory or Path()).resolve()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise OptionError(f"{directory} {what}", remedy="Create an application with `veko init`.")
    if has_plugins(root):
        return root, Options.read(root).plugins_dir[0]
    # As for other commands: DIR may itself be a folder of plugins.
    own = directory is not None or root.name == "plugins"
    return root, root if own else root / "plugins"


def _asked(
    what: str,
    *,
    default: str | None = None,
    choices: list[str] | None = None,
    check: Callable[[str], object] | None = None,
) -> str:
    def checked(text: str) -> str:
        try:
            if check is not None:
                check(text)
        except VekoError as error:
            raise click.BadParameter(str(error)) from error
        return text

    kind: Any = click.Choice(choices) if choices else None
    answer: str = click.prompt(
        what,
        default=default,
        show_default=bool(default),
        type=kind,
        show_choices=False,
        value_proc=None if choices else checked,
    )
    return answer


def _shown(path: Path) -> str:
    """Return a path as a user of this folder would write it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative

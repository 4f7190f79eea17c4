"""`veko doctor`: what is wrong with environment, settings and plugins, and what helps."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rich_click as click

from .parameters import debug_option, debugging, directory_argument, json_option

if TYPE_CHECKING:
    from veko_plugins.admin import AdminClient

    from .examinations import Finding

__all__ = ["doctor"]

_MARKS: Final = {"ok": ("ok     ", "green"), "warning": ("warning", "yellow")}


@click.command()
@directory_argument
@json_option
@debug_option
def doctor(directory: Path | None, as_json: bool) -> None:
    """Examine the environment, the extras, the settings and the plugins of the application in DIR.

    Each finding comes with a remedy. If the application is being served, it is asked about its
    plugins. Otherwise this loads it with an empty storage in memory, and does not serve it. The
    exit code is 0 if nothing is broken, else 1.
    """
    raise SystemExit(examine(directory, as_json=as_json, debug=debugging()))


def examine(directory: Path | None, *, as_json: bool, debug: bool) -> int:
    """Examine an application and its environment; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """
    from .printing import print_json

    found = _findings(directory, debug=debug)
    broken = sum(one.level == "problem" for one in found)
    if as_json:
        print_json({"ok": not broken, "findings": found})
    else:
        _show(found)
    return int(broken > 0)


def _findings(directory: Path | None, *, debug: bool) -> list[Finding]:
    from veko import VekoError
    from veko_plugins.logging import Logging

    from .application import options_of
    from .examinations import (
        Finding,
        application,
        environment,
        finding_of,
        folder,
        running,
        settings,
    )
    from .runner import Stop, kernel_quiet, run
    from .running import ask_if_running

    found = list(environment())
    logs = Logging()
    root = (directory or Path()).resolve()
    options = None
    if root.is_dir():
        of_settings, options = settings(root)
        found += of_settings
    try:
        given = options_of(directory, logs)
    except VekoError as error:
        if directory is not None:
            return [*found, finding_of("settings", error)]
        text = "there is no application in this folder, so no plugins were examined"
        return [*found, Finding("plugins", "ok", text, "Name its folder: veko doctor DIR.")]
    if options is None:
        return found
    found += folder(options)

    async def ask(client: AdminClient, _: Stop) -> None:
        found.extend(await running(client))

    code = ask_if_running(directory, ask, debug=debug)
    if code is not None:
        if code:
            text = "the running application did not say how its plugins are"
            found.append(Finding("plugins", "problem", text, "See the message above."))
        return found

    async def work(_: Stop) -> int:
        with contextlib.redirect_stdout(sys.stderr):  # plugins may print
            found.extend(await application(given, options))
        return 0

    # Warnings become findings, so they are not printed.
    logs.configure("debug") if debug else logs.configure("warning", stream=io.StringIO())
    try:
        with kernel_quiet(debug=debug):
            if run(work, debug=debug):
                text = "the examination of the plugins was ended"
                found.append(Finding("plugins", "problem", text, "See the message above."))
    finally:
        logs.reset()
    return found


def _show(found: list[Finding]) -> None:
    area = ""
    for one in found:
        if one.area != area:
            area = one.area
            click.echo(click.style(area, bold=True))
        mark, colour = _MARKS.get(one.level, ("PROBLEM", "red"))
        click.echo(f"  {click.style(mark, fg=colour)}  {one.text}")
        if one.remedy:
            click.echo(f"           {one.remedy}")
    broken = sum(one.level == "problem" for one in found)
    warned = sum(one.level == "warning" for one in found)
    click.echo(
        f"{broken or 'no'} problem{'s' * (broken != 1)}, {warned or 'no'} "
        f"warning{'s' * (warned != 1)}"
    )

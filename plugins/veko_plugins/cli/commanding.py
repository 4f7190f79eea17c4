"""`veko run`, asked of the running application."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Final

import rich_click as click

from veko_plugins.admin import AdminClient, AdminError

from .printing import print_json, print_result
from .runner import Quit, Stop, print_error
from .running import ask_if_running

__all__ = ["list_running_commands", "run_in_running"]

_USAGE: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)


def run_in_running(
    directory: Path | None, name: str, words: list[str], *, debug: bool
) -> int | None:
    """Run a plugin's command in the application that runs.

    What the command prints, the application prints; what it returns is printed here.

    Args:
        directory: The application's directory, as the user gave it.
        name: The command.
        words: Its arguments, as on a command line.
        debug: Whether errors are shown with their traceback.

    Returns:
        The exit code, which is that of the command's `sys.exit`; `None` if no application runs.
    """

    async def work(client: AdminClient, _: Stop) -> None:
        try:
            answer = await client.invoke(name, words)
        except AdminError as error:
            code = error.exit_code or (2 if error.status in _USAGE else 1)
            print_error(error, debug=debug)
            raise Quit(code) from error
        print_result(answer.result)

    return ask_if_running(directory, work, debug=debug)


def list_running_commands(directory: Path | None, *, as_json: bool, debug: bool) -> int | None:
    """List the commands of the application that runs; `None` if none does.

    Args:
        directory: The application's directory, as the user gave it.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def show(client: AdminClient, _: Stop) -> None:
        found = await client.commands()
        if as_json:
            keys = ("name", "description", "plugin")
            print_json([{key: getattr(one, key) for key in keys} for one in found])
            return
        width = max((len(one.name) for one in found), default=0)
        for one in found:
            click.echo(f"{one.name.ljust(width)}  {one.description}".rstrip())
        if not found:
            click.echo("no plugin provides a command", err=True)

    return ask_if_running(directory, show, debug=debug)

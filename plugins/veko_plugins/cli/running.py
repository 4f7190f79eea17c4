"""The application that is being served from a directory, asked over its control socket.

A command that works on an application asks the one that runs, if there is one, and says so on
standard error: it never loads a second copy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import rich_click as click

from veko import NotFoundError, OptionError
from veko_plugins.admin import AdminClient, AdminError

from .runner import Quit, Stop, print_error, run

__all__ = ["NOT_RUNNING", "ask", "ask_if_running"]

NOT_RUNNING: Final = 3
"""The exit code of a command that needs an application that runs."""
_PROBE: Final = 5.0
"""Seconds within which it has to say that it is there."""

Work = Callable[[AdminClient, Stop], Awaitable[int | None]]


def ask(directory: Path | None, work: Work, *, debug: bool, ends: bool = False) -> int:
    """Ask the application that runs; return the exit code, 3 if none does.

    Args:
        directory: The application's directory, as the user gave it.
        work: Asks, prints, and returns the exit code; `None` for 0.
        debug: Whether errors are shown with their traceback.
        ends: Whether it continues until it is interrupted, which is then success.
    """
    code = ask_if_running(directory, work, debug=debug, ends=ends)
    if code is not None:
        return code
    root = (directory or Path()).resolve()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        remedy = "Name the folder of an application."
        print_error(OptionError(f"{directory} {what}", remedy=remedy), debug=debug)
        return 2
    remedy = "Start it with `veko serve`."
    print_error(NotFoundError(f"no application serves from {root}", remedy=remedy), debug=debug)
    return NOT_RUNNING


def ask_if_running(
    directory: Path | None, work: Work, *, debug: bool, ends: bool = False
) -> int | None:
    """Ask the application that runs; return the exit code, or `None` if none does.

    Args:
        directory: The application's directory, as the user gave it.
        work: Asks, prints, and returns the exit code; `None` for 0.
        debug: Whether errors are shown with their traceback.
        ends: Whether it continues until it is interrupted, which is then success.
    """
    root = (directory or Path()).resolve()
    try:
        probe, client = AdminClient.local(root, timeout=_PROBE), AdminClient.local(root)
    except NotFoundError:
        return None
    found: list[int] = []

    async def working(stop: Stop) -> int:
        try:
            status = await probe.status()
        except NotFoundError:  # a process that was killed has left its socket
            return 0
        found.append(status.pid)
        shown = f"veko: answered by the running application {status.name} (process {status.pid})"
        click.echo(shown, err=True)
        try:
            return await work(client, stop) or 0
        except AdminError as error:
            if error.remedy:  # it is written for those who write Python
                error.remedy = error.remedy.replace("pass cascade=True", "use --cascade")
            print_error(error, debug=debug)
            for fault in error.faults:
                click.echo(f"  {fault.path}: {fault.message}", err=True)
            raise Quit(1) from error

    code = run(working, debug=debug, on_stop="" if ends else None)
    return code if found or code else None

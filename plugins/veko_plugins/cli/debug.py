"""`veko debug`: a console in the running application, or in one that is loaded for it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from veko import NotFoundError, StateError, VekoError
from veko_plugins._lib.control_files import live_sockets
from veko_plugins._lib.masking import masked_text
from veko_plugins.console import Connection, connect, find_consoles
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager

from .application import options_of
from .runner import Stop, print_error, run

__all__ = ["debug_plugin"]


def debug_plugin(
    name: str, directory: Path | None, *, code: str | None, process: int | None, debug: bool
) -> int:
    """Open a console that looks into a plugin; return the exit code.

    Args:
        name: The plugin.
        directory: The application's directory, as the user gave it.
        code: Code to run instead of asking for it.
        process: The process to attach to, if several run the application.
        debug: Whether errors are shown with their traceback.
    """
    root = (directory or Path()).resolve()
    if code is None and not sys.stdin.isatty():
        code = sys.stdin.read()
    if code is None and not _has_terminal():
        return 2
    try:
        found = _chosen(root, process)
        if found is not None:
            return run(lambda stop: _attached(found, name, code, root), debug=debug)
        logs = Logging()
        options: dict[str, Any] = {**options_of(directory, logs), "dev_mode": True}
    except VekoError as error:
        print_error(error, debug=debug)
        return 2
    click.echo(f"veko: no application runs in {root} with --dev; loading it here", err=True)

    async def work(_: Stop) -> int:
        async with PluginManager(**options) as manager:
            for plugin, error in manager.report.failed.items():
                click.echo(masked_text(f"veko: {plugin} did not load: {error}"), err=True)
            own = find_consoles(manager.options.directory).get(os.getpid())
            if own is None:
                click.echo("veko: this system has no sockets that a console needs", err=True)
                return 1
            return await _attached(own, name, code, root)

    logs.configure("debug" if debug else "warning")
    try:
        return run(work, debug=debug)
    finally:
        logs.reset()


def _chosen(root: Path, process: int | None) -> Path | None:
    """Return the console of the application that runs; `None` if none does.

    Raises:
        NotFoundError: That process does not run it.
        StateError: It runs without `dev_mode`.
    """
    found = find_consoles(root)
    if process is not None and process not in found:
        known = ", ".join(map(str, found))
        raise NotFoundError(
            f"process {process} has no console of the application in {root}",
            remedy=f"There are: {known}." if known else "Start one: veko serve --dev.",
        )
    others = live_sockets(root)
    if not found and others:
        raise StateError(
            f"process {max(others)} serves the application without development mode",
            path=root,
            remedy="Start it with --dev: code runs in others' processes only then.",
        )
    if process is None and len(found) > 1:
        click.echo(
            f"veko: processes {', '.join(map(str, found))} run it; this is {max(found)} "
            "(--process N chooses)",
            err=True,
        )
    return found.get(max(found, default=0) if process is None else process)


def _has_terminal() -> bool:
    try:
        import ptpython  # noqa: F401
    except ImportError:
        click.echo(
            'veko: a console in a terminal needs ptpython: pip install "veko[debug]". Without it, '
            "run code with -c CODE, or from standard input",
            err=True,
        )
        return False
    return True


async def _attached(path: Path, name: str, code: str | None, root: Path) -> int:
    connection = await connect(path, name)
    try:
        if code is not None:
            return await _run_once(connection, code)
        from .terminal import Terminal

        return await Terminal(connection, name, root).run()
    finally:
        connection.close()


async def _run_once(connection: Connection, code: str) -> int:
    width = shutil.get_terminal_size().columns
    done = await connection.run(code, lambda text: click.echo(text, nl=False), width)
    if done.value is not None:
        click.echo(done.value)
    if done.error is not None:
        click.echo(done.error, err=True)
    return 0 if done.error is None else 1

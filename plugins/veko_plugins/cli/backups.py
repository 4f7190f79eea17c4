"""`veko backup` and `veko restore`: all of an application in one file, and back from it.

Both load the application, so it must not be served meanwhile: its storage has one owner. What a
running application has is written by its own `manager.backup_plugins()`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import rich_click as click
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from veko import VekoError
from veko_plugins.backup import Backup
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager

from .application import options_of
from .runner import Stop, complain, kernel_quiet, run

__all__ = ["back_up", "restore_backup"]

SUFFIX = ".jsonl"


def back_up(directory: Path | None, path: Path | None, *, debug: bool) -> int:
    """Back an application up; returns the exit code."""
    if path is None and directory is not None and directory.suffix == SUFFIX:
        directory, path = None, directory

    async def work(manager: PluginManager, keeper: Backup) -> None:
        with _progress("backing up") as told:
            written = await keeper.save(path, told)
        click.echo(written)

    return _with_application(directory, work, debug=debug)


def restore_backup(path: Path, directory: Path | None, *, debug: bool) -> int:
    """Restore an application; returns the exit code."""

    async def work(manager: PluginManager, keeper: Backup) -> None:
        with _progress("restoring") as told:
            report = await keeper.restore(path, told)
        state = await manager.save_state()
        click.echo(f"restored {len(report.plugins)} plugins as of {report.made_at}")
        for name, (then, now) in report.versions.items():
            click.echo(f"  {name} was {then} then, and is {now} now")
        for name, secrets in report.secrets_missing.items():
            click.echo(f"  {name} has no {', '.join(secrets)}: secrets are in no backup")
        click.echo(
            f"Their storage is in place. Their configurations and states are in {state}: "
            "`[plugins.state] restore = true` in veko.toml has each start take them up."
        )

    return _with_application(directory, work, debug=debug)


def _with_application(
    directory: Path | None,
    work: Callable[[PluginManager, Backup], Awaitable[None]],
    *,
    debug: bool,
) -> int:
    logs = Logging()
    try:
        options = options_of(directory, logs)
    except VekoError as error:
        complain(error, debug=debug)
        return 2

    async def loaded(_: Stop) -> int:
        with contextlib.redirect_stdout(sys.stderr):
            manager = PluginManager(**options)
            await manager.start()
        try:
            for name, error in manager.report.failed.items():
                click.echo(f"veko: {name} did not load: {error}", err=True)
            keeper = manager.use("backup")
            assert isinstance(keeper, Backup)
            await work(manager, keeper)
        finally:
            with contextlib.redirect_stdout(sys.stderr):
                await manager.stop()
        return 0

    logs.configure("debug" if debug else "error")
    try:
        with kernel_quiet(debug=debug):
            return run(loaded, debug=debug)
    finally:
        logs.reset()


@contextlib.contextmanager
def _progress(verb: str) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far it is; gives what is told the number of lines."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with shown:
        task = shown.add_task(verb, total=None)

        def tell(lines: int) -> None:
            shown.update(task, description=f"{verb}: {lines:,} lines")

        yield tell

"""`veko backup` and `veko restore`: a whole application saved in one file, and restored from it.

Both load the application, so it must not be running: its storage has one owner. One that runs is
asked to do so itself; see `saving`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from veko import VekoError
from veko_plugins._lib.masking import masked_text
from veko_plugins.backup import Backup
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager

from .application import options_of
from .printing import print_json
from .progress import SAID, loading
from .runner import Stop, print_error, run_quiet

__all__ = ["back_up", "restore_backup"]

SUFFIX = ".jsonl"


def back_up(directory: Path | None, path: Path | None, *, as_json: bool, debug: bool) -> int:
    """Back up an application; return the exit code.

    Args:
        directory: The application's directory, as the user gave it.
        path: The file to write; `None` for a name made of the time.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """
    if path is None and directory is not None and directory.suffix == SUFFIX:
        directory, path = None, directory

    async def work(manager: PluginManager, service: Backup) -> None:
        with _progress("backing up") as progress:
            written = await service.save(path, progress)
        if as_json:
            print_json({"path": str(written)})
        else:
            click.echo(written)

    return _with_application(directory, work, debug=debug)


def restore_backup(path: Path, directory: Path | None, *, as_json: bool, debug: bool) -> int:
    """Restore an application; return the exit code.

    Args:
        path: The backup.
        directory: The application's directory, as the user gave it.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """

    async def work(manager: PluginManager, service: Backup) -> None:
        # The application stops and starts again, and its plugins may print.
        with contextlib.redirect_stdout(sys.stderr), _progress("restoring") as progress:
            report = await service.restore(path, progress)
        state = await manager.save_state()
        if as_json:
            print_json(msgspec.structs.asdict(report) | {"state": str(state)})
            return
        count, moment = len(report.plugins), f"{report.made_at:%Y-%m-%d %H:%M:%S} UTC"
        click.echo(f"restored {count} plugins from the backup of {moment}")
        for name, (then, now) in report.versions.items():
            click.echo(f"  {name} is now {now}; the backup has {then}")
        for name, secrets in report.secrets_missing.items():
            click.echo(f"  {name} lacks {', '.join(secrets)}: backups contain no secrets")
        click.echo(
            f"Their storage is restored. Their configurations and states are in {state}; set "
            "`restore = true` under [plugins.state] in veko.toml to apply them at each start."
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
        print_error(error, debug=debug)
        return 2

    async def loaded(_: Stop) -> int:
        with contextlib.redirect_stdout(sys.stderr):
            manager = PluginManager(**options)
            with loading(manager):
                await manager.start()
        try:
            for name, error in manager.report.failed.items():
                click.echo(masked_text(f"veko: {name} did not load: {error}"), err=True)
            service = manager.use("backup")
            assert isinstance(service, Backup)
            await work(manager, service)
        finally:
            with contextlib.redirect_stdout(sys.stderr):
                await manager.stop()
        return 0

    return run_quiet(logs, loaded, "error", debug=debug, loggers=SAID)


@contextlib.contextmanager
def _progress(verb: str) -> Iterator[Callable[[int], None]]:
    """Show progress on a terminal; yield the function to call with the number of lines so far."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with shown:
        task = shown.add_task(verb, total=None)

        def update(lines: int) -> None:
            shown.update(task, description=f"{verb}: {lines:,} lines")

        yield update

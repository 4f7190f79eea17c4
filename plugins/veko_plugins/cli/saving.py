"""`veko backup` and `veko restore`, asked of the running application."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import rich_click as click

from veko_plugins.admin import AdminClient, BackupRow, Restore
from veko_plugins.backup import BackupError

from .changing import make_change
from .printing import print_json
from .progress import progress
from .runner import Stop
from .running import ask, ask_if_running

__all__ = ["back_up_running", "restore_running"]

SUFFIX: Final = ".jsonl"


def back_up_running(
    directory: Path | None, path: Path | None, *, as_json: bool, debug: bool
) -> int | None:
    """Back up the application that runs; return the exit code, or `None` if none runs.

    Args:
        directory: The application's directory, as the user gave it.
        path: The file to write; `None` for a name made of the time.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.
    """
    if path is None and directory is not None and directory.suffix == SUFFIX:
        directory, path = None, directory

    async def work(client: AdminClient, _: Stop) -> None:
        if path is not None and path.exists():
            raise BackupError(f"{path} exists", remedy="Name another file.")
        with progress(lambda: "backing up"):
            row = await client.backup()
        written = Path(row.path) if path is None else _moved(row, path)
        if as_json:
            print_json({"path": str(written)})
        else:
            click.echo(written)

    return ask_if_running(directory, work, debug=debug)


def _moved(row: BackupRow, path: Path) -> Path:
    """Move a backup that the application has made to where it was asked for."""
    try:
        with path.open("xb") as target, Path(row.path).open("rb") as source:
            shutil.copyfileobj(source, target)
    except OSError as error:
        raise BackupError(
            f"{path} cannot be written: {error.strerror}",
            remedy=f"The backup is {row.path}.",
        ) from error
    Path(row.path).unlink()
    return path.absolute()


def restore_running(
    path: Path, directory: Path | None, *, plan: bool, as_json: bool, debug: bool
) -> int | None:
    """Restore a backup in the application that runs; `None` if none runs and there is no plan.

    Args:
        path: The backup.
        directory: The application's directory, as the user gave it.
        plan: Whether only to say what would happen.
        as_json: Whether to print JSON.
        debug: Whether errors are shown with their traceback.

    Returns:
        The exit code.
    """

    async def work(client: AdminClient, _: Stop) -> None:
        folder = Path((await client.status()).directory) / ".veko" / "backups"
        intent = Restore(_in_folder(path, folder))
        await make_change(client, intent, plan=plan, as_json=as_json)

    return (ask if plan else ask_if_running)(directory, work, debug=debug)


def _in_folder(path: Path, folder: Path) -> str:
    """Return the name of a backup in the application's folder, to which it is copied if needed."""
    if path.parent.resolve() == folder.resolve():
        return path.name
    target = folder / path.name
    try:
        if target.exists() and target.read_bytes() == path.read_bytes():
            return path.name
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy)
    except OSError as error:
        raise BackupError(
            f"{path} cannot be read, or not copied to {folder}: {error.strerror}",
            remedy="Name another file.",
        ) from error
    return path.name

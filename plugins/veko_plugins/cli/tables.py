"""Lists, exports and purges the tables of plugins, also of those that are gone."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import rich_click as click

from veko import VekoError
from veko_plugins.logging import Logging
from veko_plugins.manager import PluginManager

from .application import options_of
from .runner import Stop, print_error, run_quiet

if TYPE_CHECKING:
    from veko_plugins.database import Database, Owned

__all__ = ["export_tables", "list_tables", "purge_tables"]

_TIME: Final = "%Y-%m-%d-%H%M%S"


def list_tables(directory: Path | None, *, as_json: bool, debug: bool) -> int:
    """List what plugins have in the database; return the exit code."""

    async def work(db: Database, _: Path) -> int:
        found = (await db.owned()).values()
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(list(found)), indent=2))
            return 0
        for one in found:
            click.echo(f"{one.plugin} at {', '.join(one.revisions) or 'no revision'}")
            _show_tables(one)
        if not found:
            click.echo("no plugin has tables")
        return 0

    return _with_database(directory, work, debug=debug)


def export_tables(directory: Path | None, plugin: str, path: Path | None, *, debug: bool) -> int:
    """Write a plugin's tables to a file; return the exit code."""

    async def work(db: Database, root: Path) -> int:
        name = f"{plugin}-{datetime.now(UTC).strftime(_TIME)}.jsonl"
        file = path or root / ".veko" / "exports" / name
        written = await db.export(plugin, file)
        _show_tables(written)
        click.echo(f"wrote {file}")
        return 0

    return _with_database(directory, work, debug=debug)


def purge_tables(directory: Path | None, plugin: str, *, yes: bool, debug: bool) -> int:
    """Drop a plugin's tables, after a question; return the exit code."""

    async def work(db: Database, _: Path) -> int:
        have = (await db.owned()).get(plugin)
        if have is not None and not yes:
            _show_tables(have)
            if not click.confirm(f"Drop these tables of {plugin} for good?"):
                click.echo("Nothing was changed.")
                return 1
        dropped = await db.purge(plugin)
        click.echo(f"dropped {len(dropped.tables)} tables of {plugin}")
        _show_tables(dropped)
        return 0

    return _with_database(directory, work, debug=debug)


def _show_tables(one: Owned) -> None:
    for table, rows in one.tables.items():
        click.echo(f"  {table}: {rows} rows")


def _with_database(
    directory: Path | None, work: Callable[[Database, Path], Awaitable[int]], *, debug: bool
) -> int:
    """Open an application's database without its plugins, and work on it."""
    logs = Logging()
    try:
        options = options_of(directory, logs)
    except VekoError as error:
        print_error(error, debug=debug)
        return 2
    options |= {"auto_load": False, "required": (), "watch_mode": False}
    options |= {"storage": "none", "adapter": None, "auth": False}

    async def loaded(_: Stop) -> int:
        with contextlib.redirect_stdout(sys.stderr):
            manager = PluginManager(**options)
            await manager.start()
        try:
            return await work(manager.use("database"), options["root"])
        finally:
            with contextlib.redirect_stdout(sys.stderr):
                await manager.stop()

    return run_quiet(logs, loaded, "error", debug=debug)

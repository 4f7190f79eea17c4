"""`veko database` and its commands."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from .completion import complete_plugins
from .examples import Commands
from .parameters import debug_option, debugging, json_option

__all__ = ["database"]


@click.group(cls=Commands)
def database() -> None:
    """List, export or purge the tables of plugins, also of those that are gone.

    This opens the database of the option `database` and loads no plugin.
    """


_dir = click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The application's folder."
)


@database.command("list")
@_dir
@json_option
@debug_option
def list_tables_(directory: Path | None, as_json: bool) -> None:
    """List which plugins have tables, with their rows and revisions."""
    from .tables import list_tables

    raise SystemExit(list_tables(directory, as_json=as_json, debug=debugging()))


@database.command()
@click.argument("plugin", metavar="PLUGIN", shell_complete=complete_plugins)
@click.argument("path", metavar="[PATH]", required=False, type=click.Path(path_type=Path))
@_dir
@debug_option
def export(plugin: str, path: Path | None, directory: Path | None) -> None:
    """Write the tables of PLUGIN to PATH as JSON, one line for each row.

    Without PATH, to .veko/exports/<plugin>-<time>.jsonl. An existing file is never overwritten.
    """
    from .tables import export_tables

    raise SystemExit(export_tables(directory, plugin, path, debug=debugging()))


@database.command()
@click.argument("plugin", metavar="PLUGIN", shell_complete=complete_plugins)
@_dir
@click.option("--yes", is_flag=True, help="Do not ask.")
@debug_option
def purge(plugin: str, directory: Path | None, yes: bool) -> None:
    """Drop the tables of PLUGIN, all or none.

    The plugin must not be loaded by an application that runs.
    """
    from .tables import purge_tables

    raise SystemExit(purge_tables(directory, plugin, yes=yes, debug=debugging()))
